//! Finds the file of each video in a folder listing that is read once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::DatasetError;

/// Containers that are looked for, in order of preference.
const EXTENSIONS: [&str; 5] = ["mp4", "mkv", "avi", "webm", "mov"];

/// Whether a file's name says that it is a video.
pub fn is_video(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// Video files of a folder and of the folders directly below it, by name without extension.
pub(super) struct Listing(BTreeMap<String, PathBuf>);

impl Listing {
    /// Lists the folder `data.videos`.
    pub(super) fn of(folder: &str) -> Result<Self, DatasetError> {
        if folder.is_empty() {
            return Err(DatasetError::NotSet { key: "data.videos" });
        }
        let folder = Path::new(folder);
        let mut files = BTreeMap::new();
        add(folder, true, &mut files)
            .map_err(|source| DatasetError::Read { path: folder.to_owned(), source })?;
        Ok(Self(files.into_iter().map(|(stem, (_, path))| (stem, path)).collect()))
    }

    /// The file of a video; ActivityNet's files carry a `v_` that its annotations leave out.
    pub(super) fn find(&self, id: &str) -> Option<&PathBuf> {
        self.0
            .get(id)
            .or_else(|| self.0.get(&format!("v_{id}")))
            .or_else(|| self.0.get(id.strip_prefix("v_")?))
    }
}

fn add(
    folder: &Path,
    descend: bool,
    files: &mut BTreeMap<String, ((usize, PathBuf), PathBuf)>,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if descend && path.is_dir() {
            add(&path, false, files)?;
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
        let preference =
            extension.and_then(|extension| EXTENSIONS.iter().position(|known| *known == extension));
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if let (Some(preference), Some(stem)) = (preference, stem) {
            // The order of a listing is the file system's: the choice between two files must not hang on it.
            let rank = (preference, path.clone());
            match files.get(stem) {
                Some((better, _)) if *better <= rank => {}
                _ => {
                    files.insert(stem.to_owned(), (rank, path));
                }
            }
        }
    }
    Ok(())
}
