//! THUMOS14's folder of text files, one a class and subset (spec 70, section 1), and what its videos need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{DatasetError, Raw, RawAction, RawLabel, RawVideo};
use crate::config::DisputedVideos;

/// Marks intervals that nobody could decide; they are no actions.
const AMBIGUOUS: &str = "Ambiguous";
/// Test videos that some leave out: the first has wrong labels, the second none (decision D18).
pub(crate) const DISPUTED: [&str; 2] = ["video_test_0000270", "video_test_0001292"];
const SUBSETS: [&str; 2] = ["val", "test"];

/// Reads `<Class>_val.txt` and `<Class>_test.txt` in the folder and in the folders directly below it.
pub(super) fn read_folder(folder: &Path) -> Result<Raw, DatasetError> {
    let mut videos: BTreeMap<(String, String), Vec<RawAction>> = BTreeMap::new();
    let mut files = 0;
    for path in text_files(folder)? {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let Some((class, subset)) = stem.rsplit_once('_').filter(|(_, subset)| SUBSETS.contains(subset))
        else {
            continue;
        };
        files += 1;
        let text = std::fs::read_to_string(&path)
            .map_err(|source| DatasetError::Read { path: path.clone(), source })?;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let (video, start, end) = fields(line).ok_or_else(|| DatasetError::BadLine {
                path: path.clone(),
                line: number + 1,
                text: line.trim().to_owned(),
            })?;
            let label = RawLabel::Name(class.to_owned());
            let key = (subset.to_owned(), video.to_owned());
            videos.entry(key).or_default().push(RawAction { label, start, end });
        }
    }
    if files == 0 {
        return Err(DatasetError::NoTextFiles { path: folder.to_owned() });
    }
    let videos = videos
        .into_iter()
        .map(|((subset, id), actions)| RawVideo { id, subset, duration: None, actions })
        .collect();
    Ok(Raw { videos, ..Raw::default() })
}

fn fields(line: &str) -> Option<(&str, f64, f64)> {
    let mut words = line.split_whitespace();
    let (video, start, end) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then_some((video, start, end))
}

fn text_files(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let list = |folder: &Path| -> Result<Vec<PathBuf>, DatasetError> {
        let error = |source| DatasetError::Read { path: folder.to_owned(), source };
        let entries = std::fs::read_dir(folder).map_err(error)?;
        entries.map(|entry| entry.map(|entry| entry.path()).map_err(error)).collect()
    };
    let mut files = Vec::new();
    for path in list(folder)? {
        if path.is_dir() {
            files.extend(list(&path)?);
        } else {
            files.push(path);
        }
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    Ok(files)
}

/// Takes out ambiguous intervals, videos that show nothing else, and unless kept the two test videos of decision D18.
pub(super) fn clean(mut raw: Raw, disputed: DisputedVideos) -> Raw {
    let ambiguous = |action: &RawAction| matches!(&action.label, RawLabel::Name(name) if name == AMBIGUOUS);
    let mut intervals = 0;
    let mut undecided = Vec::new();
    let mut dropped = Vec::new();
    raw.videos.retain_mut(|video| {
        let before = video.actions.len();
        video.actions.retain(|action| !ambiguous(action));
        intervals += before - video.actions.len();
        if disputed == DisputedVideos::Dropped && DISPUTED.contains(&video.id.as_str()) {
            dropped.push(video.id.clone());
            return false;
        }
        let only_ambiguous = before > 0 && video.actions.is_empty();
        if only_ambiguous {
            undecided.push(video.id.clone());
        }
        !only_ambiguous
    });
    if intervals > 0 {
        raw.remarks.push(format!("{intervals} intervals labelled `{AMBIGUOUS}` are not actions"));
    }
    if !undecided.is_empty() {
        raw.remarks.push(format!("videos that show nothing else are left out: {}", undecided.join(", ")));
    }
    if !dropped.is_empty() {
        raw.remarks.push(format!("test videos with wrong or no labels are left out: {}", dropped.join(", ")));
    }
    raw
}
