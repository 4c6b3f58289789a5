//! The videos that a command line names, files and folders of files, each with a name that no other one has.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use longtake_shared::dataset;
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::NamedVideo;

/// The videos of a command line in its order, those of a folder by name; a file that is named twice comes once.
///
/// A name is the file's without its ending; where several have that, the folders above are part of it as far as is needed, and
/// where those are the same, the ending.
pub(super) fn named(typed: &[PathBuf]) -> Result<Vec<NamedVideo>, Failure> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in typed {
        if path.is_dir() { below(path, &mut paths)? } else { paths.push(path.clone()) }
    }
    let mut known = BTreeMap::new();
    for path in paths {
        let order = known.len();
        known.entry(place(&path)).or_insert((order, path));
    }
    let mut files: Vec<(usize, PathBuf, PathBuf)> =
        known.into_iter().map(|(place, (order, path))| (order, place, path)).collect();
    files.sort();
    let names = names(&files.iter().map(|(_, place, _)| place.as_path()).collect::<Vec<_>>());
    Ok(names.into_iter().zip(files).map(|(name, (_, _, path))| NamedVideo { name, path }).collect())
}

/// All videos below a folder; the command line names the folder, so one without any is a mistake.
fn below(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let found = dataset::videos_below(folder).map_err(|error| Failure {
        exit: ExitCode::of_named_file(&error),
        ..Failure::new(format!("the folder `{}` cannot be read: {error}", folder.display()))
    })?;
    if found.is_empty() {
        return Err(Failure::new(format!("there is no video in the folder `{}`", folder.display()))
            .hint("a video is known by its ending; name a file with another ending by itself")
            .never_restart());
    }
    paths.extend(found);
    Ok(())
}

/// Where a file lies, by its own name in its real folder: links to one video under two names are two videos.
fn place(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real = fs::canonicalize(folder).or_else(|_| std::path::absolute(folder));
    real.unwrap_or_else(|_| folder.to_owned()).join(path.file_name().unwrap_or_default())
}

/// A name for each of these distinct places, as short as it can be.
fn names(places: &[&Path]) -> Vec<String> {
    let whole: Vec<Vec<String>> = places.iter().map(|place| parts(place)).collect();
    let stems: Vec<Vec<String>> = places.iter().map(|place| parts(&place.with_extension(""))).collect();
    let name = |index: usize| {
        let (stem, file) = (&stems[index], &whole[index]);
        let shared = |tail: &[String], of: &[Vec<String>]| {
            of.iter().enumerate().any(|(other, parts)| other != index && parts.ends_with(tail))
        };
        let unique =
            (1..=stem.len()).map(|count| &stem[stem.len() - count..]).find(|tail| !shared(tail, &stems));
        let with_ending =
            || (1..=file.len()).map(|count| &file[file.len() - count..]).find(|tail| !shared(tail, &whole));
        unique.or_else(with_ending).unwrap_or(file).join("/")
    };
    (0..places.len()).map(name).collect()
}

/// The names that lead to a place, without those that are none, such as `..`.
fn parts(place: &Path) -> Vec<String> {
    place
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_short_as_they_can_be() {
        let named = |places: &[&str]| names(&places.iter().map(Path::new).collect::<Vec<_>>());
        assert_eq!(named(&["/a/x.mp4", "/b/y.mp4"]), ["x", "y"]);
        assert_eq!(named(&["/a/x.mp4", "/b/x.mkv", "/b/y.mp4"]), ["a/x", "b/x", "y"]);
        assert_eq!(named(&["/a/x.mp4", "/a/x.mkv"]), ["x.mp4", "x.mkv"]);
        assert_eq!(named(&["/x.mp4", "/a/x.mp4"]), ["x.mp4", "a/x"]);
        assert_eq!(named(&["/v.1.mp4", "/v.2.mp4"]), ["v.1", "v.2"]);
    }

    #[test]
    fn folders_are_gone_through_once_whatever_links_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for file in
            ["videos/b.MP4", "videos/deep/er/a.mkv", "videos/notes.txt", "videos/.hidden.mp4", "alone.xyz"]
        {
            fs::create_dir_all(path(file).parent().unwrap()).unwrap();
            fs::write(path(file), "").unwrap();
        }
        std::os::unix::fs::symlink(path("videos"), path("videos/deep/circle")).unwrap();
        let found = named(&[path("videos"), path("alone.xyz"), path("videos/../alone.xyz")]).unwrap();
        let names: Vec<&str> = found.iter().map(|video| video.name.as_str()).collect();
        assert_eq!(names, ["b", "a", "alone"]);

        fs::create_dir(path("empty")).unwrap();
        let failure = named(&[path("empty")]).unwrap_err();
        assert_eq!((failure.exit, failure.message.contains("empty")), (ExitCode::NeverRestart, true));
    }
}
