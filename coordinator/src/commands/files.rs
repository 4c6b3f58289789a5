//! Files that are either whole or not there, and places for them that are checked before the work.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use longtake_shared::hint::{ExitCode, Failure};

/// Writes a file under another name and gives it its own when it is whole; makes its folder.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.partial"));
    let written = parent(path)
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&partial, content))
        .and_then(|()| fs::rename(&partial, path));
    written.map_err(|error| {
        // What is left of a failed attempt is of no use; that it cannot be removed changes nothing.
        drop(fs::remove_file(&partial));
        unwritable(path, &error)
    })
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(format!("`{}` cannot be written: {error}", path.display()));
    // A file where a folder on the way should be made.
    let exit = match error.kind() {
        io::ErrorKind::AlreadyExists => ExitCode::NeverRestart,
        _ => ExitCode::of_named_file(error),
    };
    Failure { exit, ..failure.hint("name a folder that can be written") }
}

/// Folders that were made to see whether a file could be written. Those that are still empty go when this does.
pub(super) struct Tried(Vec<PathBuf>);

impl Drop for Tried {
    fn drop(&mut self) {
        for folder in &self.0 {
            // A folder that holds something by now is of use.
            drop(fs::remove_dir(folder));
        }
    }
}

/// Finds out, before the work whose result it is, whether a file can be written: makes its folder and writes another file there.
pub(super) fn writable(path: &Path) -> Result<Tried, Failure> {
    if path.is_dir() {
        return Err(Failure::new(format!("`{}` cannot be written: it is a folder", path.display()))
            .hint("name a file")
            .never_restart());
    }
    let folder = parent(path).unwrap_or(Path::new("."));
    let missing = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let tried = Tried(missing.map(Path::to_owned).collect());
    let draft = folder.join(format!(".longtake-{}.partial", std::process::id()));
    let wrote = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&draft, b"longtake"))
        .and_then(|()| fs::remove_file(&draft));
    match wrote {
        Ok(()) => Ok(tried),
        Err(error) => {
            // As in `write_whole`.
            drop(fs::remove_file(&draft));
            Err(unwritable(path, &error))
        }
    }
}

/// Whether two paths name one file that exists.
pub(super) fn same(one: &Path, other: &Path) -> bool {
    fs::canonicalize(one).ok().zip(fs::canonicalize(other).ok()).is_some_and(|(one, other)| one == other)
}

/// Removes a folder that other threads may still be writing to.
pub(super) fn remove_folder(folder: &Path) {
    // A file that comes while the folder is being emptied makes one attempt fail.
    let gone = (0..100).any(|_| fs::remove_dir_all(folder).is_ok() || !folder.exists());
    if !gone {
        tracing::warn!(folder = %folder.display(), "a folder of this process is left behind");
    }
}

fn parent(path: &Path) -> Option<&Path> {
    path.parent().filter(|folder| !folder.as_os_str().is_empty())
}

/// Fails, naming the file, where there is none.
pub(super) fn require(path: &Path, what: &str) -> Result<(), Failure> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(Failure::new(format!("{what} `{}` is not a file", path.display()))
            .hint(format!("give the path of one file as {what}"))
            .never_restart()),
        Err(error) => Err(Failure {
            exit: ExitCode::of_named_file(&error),
            ..Failure::new(format!("{what} `{}` cannot be read: {error}", path.display()))
                .hint("check the path")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out/results.json");
        write_whole(&path, b"1").unwrap();
        write_whole(&path, b"22").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"22");

        let blocked = path.join("below/a/file.json");
        let failure = write_whole(&blocked, b"1").unwrap_err();
        assert!(failure.message.contains("below/a/file.json"), "{}", failure.message);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_is_tried_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/results.json");
        drop(writable(&path).unwrap());
        assert!(!folder.path().join("a").exists());

        let tried = writable(&path).unwrap();
        write_whole(&path, b"1").unwrap();
        drop(tried);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        for blocked in [path.join("file.json"), folder.path().join("a")] {
            let failure = writable(&blocked).map(drop).unwrap_err();
            assert_eq!(failure.exit, ExitCode::NeverRestart, "{}", failure.message);
            assert!(failure.message.contains(&blocked.display().to_string()), "{}", failure.message);
        }
    }
}
