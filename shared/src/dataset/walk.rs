//! Lists the files below a folder, however deep, once each and in the order of their names.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// What archives of macOS put beside the files they hold.
const RESOURCE_FORKS: &str = "__MACOSX";

/// What lies below a folder.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Files, by path; those that links lead to as well.
    pub(super) files: Vec<PathBuf>,
    /// Folders below it that cannot be listed, and why.
    pub(super) unlisted: Vec<(PathBuf, io::Error)>,
}

/// Lists everything below a folder but hidden files and folders.
///
/// # Errors
/// The folder itself cannot be listed.
pub(super) fn files_below(root: &Path) -> io::Result<Walk> {
    let mut walk = Walk::default();
    let mut folders = vec![root.to_owned()];
    // A link may lead back to a folder above it.
    let mut seen = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        if !seen.insert(folder.canonicalize().unwrap_or_else(|_| folder.clone())) {
            continue;
        }
        let entries = match std::fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) if folder == root => return Err(error),
            Err(error) => {
                walk.unlisted.push((folder, error));
                continue;
            }
        };
        for entry in entries {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") || name == RESOURCE_FORKS {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type()?;
            if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                folders.push(path);
            } else {
                walk.files.push(path);
            }
        }
    }
    // The order of a listing is the file system's: the choice between two files must not hang on it.
    walk.files.sort();
    walk.unlisted.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(walk)
}
