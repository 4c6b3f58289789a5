//! Finds the file of each video in a folder listing that is read once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::DatasetError;
use super::finding::Finding;
use super::walk::files_below;
use crate::text::composed;

/// Endings of the containers that the decoders read, in order of preference.
const ENDINGS: [&str; 37] = [
    "mp4", "mkv", "avi", "webm", "mov", "m4v", "ts", "m2ts", "mts", "m2t", "mpg", "mpeg", "mpe", "m1v",
    "m2v", "mpv", "vob", "wmv", "asf", "flv", "f4v", "3gp", "3g2", "ogv", "ogg", "ogm", "mxf", "y4m", "qt",
    "divx", "rm", "rmvb", "dv", "nut", "wtv", "mjpg", "mjpeg",
];
/// Names of other files that are remembered to suggest, at most.
const OTHERS: usize = 10_000;

/// Video files below a folder.
pub(super) struct Listing {
    root: PathBuf,
    /// By name without ending, composed; best first.
    by_stem: BTreeMap<String, Vec<PathBuf>>,
    /// Files with the ending of no video, to name where an id has no file.
    others: Vec<String>,
    /// Folders that could not be listed.
    pub(super) findings: Vec<Finding>,
}

/// The file of a video.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// Others that the id could mean.
    pub(super) unused: Vec<PathBuf>,
}

/// The video files below a folder, however deep, by path; a file is a video by its ending.
///
/// # Errors
/// A folder that cannot be listed.
pub fn videos_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let walk = files_below(folder)?;
    if let Some((_, error)) = walk.unlisted.into_iter().next() {
        return Err(error);
    }
    let is_video = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| split(name).1.is_some())
    };
    Ok(walk.files.into_iter().filter(is_video).collect())
}

impl Listing {
    /// Lists the folder `data.videos`.
    pub(super) fn of(folder: &str) -> Result<Self, DatasetError> {
        if folder.is_empty() {
            return Err(DatasetError::NotSet { key: "data.videos" });
        }
        let root = PathBuf::from(folder);
        let walk = files_below(&root).map_err(|source| DatasetError::Read { path: root.clone(), source })?;
        let (mut by_stem, mut others) = (BTreeMap::<String, Vec<(usize, PathBuf)>>::new(), Vec::new());
        for path in walk.files {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            match split(name) {
                (stem, Some(preference)) => {
                    by_stem.entry(composed(stem).into_owned()).or_default().push((preference, path));
                }
                (_, None) if others.len() < OTHERS => others.push(name.to_owned()),
                (_, None) => {}
            }
        }
        let best_first = |(stem, mut files): (String, Vec<(usize, PathBuf)>)| {
            files.sort();
            (stem, files.into_iter().map(|(_, path)| path).collect())
        };
        let unlisted = walk.unlisted.into_iter();
        let findings = unlisted
            .map(|(folder, error)| Finding::UnlistedFolder { folder, reason: error.to_string() })
            .collect();
        Ok(Self { root, by_stem: by_stem.into_iter().map(best_first).collect(), others, findings })
    }

    /// The file of a video. An id may have an ending or a path; ActivityNet's files carry a `v_` that its annotations
    /// leave out.
    pub(super) fn find(&self, id: &str) -> Option<Found> {
        let id = composed(id).replace('\\', "/");
        let (folder, name) = id.rsplit_once('/').map_or(("", id.as_str()), |(folder, name)| (folder, name));
        self.named(folder, name, None).or_else(|| {
            let (stem, preference) = split(name);
            self.named(folder, stem, Some(preference?))
        })
    }

    /// The files with a name, with or without `v_`; those in the folder and with the ending that an id names come first.
    fn named(&self, folder: &str, stem: &str, ending: Option<usize>) -> Option<Found> {
        let other = stem.strip_prefix("v_").map_or_else(|| format!("v_{stem}"), str::to_owned);
        let mut files: Vec<&PathBuf> =
            [stem, &other].into_iter().filter_map(|stem| self.by_stem.get(stem)).flatten().collect();
        let as_named = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            ending.is_none() || split(name).1 == ending
        };
        files.sort_by_key(|path| (!self.lies_in(path, folder), !as_named(path)));
        let (first, rest) = files.split_first()?;
        // A file elsewhere or with another ending than the id says is another video.
        let unused = rest.iter().filter(|path| self.lies_in(path, folder) && as_named(path));
        Some(Found { path: (*first).clone(), unused: unused.map(|path| (*path).clone()).collect() })
    }

    fn lies_in(&self, path: &Path, folder: &str) -> bool {
        let folder = folder.trim_start_matches("./").trim_matches('/');
        let below = path.parent().and_then(|parent| parent.strip_prefix(&self.root).ok());
        folder.is_empty()
            || below.is_some_and(|below| {
                let below = below.to_string_lossy();
                composed(&below)
                    .strip_suffix(folder)
                    .is_some_and(|above| above.is_empty() || above.ends_with('/'))
            })
    }

    /// The file that no video has and whose name looks most like an id, where one does.
    pub(super) fn nearest(&self, id: &str, taken: &BTreeSet<&Path>) -> Option<String> {
        let wanted = bare(id).to_lowercase();
        let most = wanted.chars().count() / 3;
        let free = self.by_stem.values().flatten().filter(|path| !taken.contains(path.as_path()));
        let videos = free.filter_map(|path| path.file_name()?.to_str());
        let others = self.others.iter().map(String::as_str);
        videos
            .chain(others)
            .map(|name| {
                let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
                (strsim::damerau_levenshtein(&bare(stem).to_lowercase(), &wanted), name)
            })
            .filter(|(distance, _)| *distance <= most)
            .min()
            .map(|(_, name)| name.to_owned())
    }
}

/// A file's name without the ending of a video, and the place of that ending in the order of preference.
fn split(name: &str) -> (&str, Option<usize>) {
    let known = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).and_then(|(stem, ending)| {
        let place = ENDINGS.iter().position(|known| known.eq_ignore_ascii_case(ending))?;
        Some((stem, Some(place)))
    });
    known.unwrap_or((name, None))
}

/// An id as all releases of a data set have it: without path, ending and `v_`, with composed accents.
pub(super) fn bare(id: &str) -> String {
    let name = id.rsplit_once(['/', '\\']).map_or(id, |(_, name)| name);
    let (stem, _) = split(name);
    composed(stem.strip_prefix("v_").unwrap_or(stem)).into_owned()
}
