//! Files that are either whole or not there.

use std::fs;
use std::path::Path;

use longtake_shared::hint::Failure;

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
        Failure::new(format!("`{}` cannot be written: {error}", path.display()))
            .hint("name a folder that can be written")
    })
}

fn parent(path: &Path) -> Option<&Path> {
    path.parent().filter(|folder| !folder.as_os_str().is_empty())
}

/// Fails, naming the file, where there is none.
pub(super) fn require(path: &Path, what: &str) -> Result<(), Failure> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(Failure::new(format!("{what} `{}` is not a file", path.display()))
            .hint(format!("give the path of one file as {what}"))),
        Err(error) => Err(Failure::new(format!("{what} `{}` cannot be read: {error}", path.display()))
            .hint("check the path")),
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
}
