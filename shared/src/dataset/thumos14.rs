//! THUMOS14's folder of text files, one a class and subset (spec 70, section 1), and what its videos need.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use super::finding::Finding;
use super::walk::files_below;
use super::{DatasetError, Raw, RawAction, RawLabel, RawVideo};
use crate::config::DisputedVideos;
use crate::text;

/// Marks intervals that nobody could decide; they are no actions.
const AMBIGUOUS: &str = "Ambiguous";
/// Test videos that some leave out: the first has wrong labels, the second none (decision D18).
pub(crate) const DISPUTED: [&str; 2] = ["video_test_0000270", "video_test_0001292"];
const SUBSETS: [&str; 2] = ["val", "test"];

/// Reads every `<Class>_val.txt` and `<Class>_test.txt` below the folder, wherever the archives were unpacked.
pub(super) fn read_folder(folder: &Path) -> Result<Raw, DatasetError> {
    let mut raw = Raw::default();
    let mut videos: BTreeMap<(&str, String), Vec<RawAction>> = BTreeMap::new();
    let files = text_files(folder, &mut raw.findings)?;
    for TextFile { class, subset, path, text } in &files {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let (video, start, end) = fields(line).ok_or_else(|| DatasetError::BadLine {
                path: path.clone(),
                line: number + 1,
                text: line.trim().to_owned(),
            })?;
            let label = RawLabel::Name(class.clone());
            videos.entry((subset, video.to_owned())).or_default().push(RawAction { label, start, end });
        }
    }
    if files.is_empty() {
        return Err(DatasetError::NoTextFiles { path: folder.to_owned() });
    }
    raw.videos = videos
        .into_iter()
        .map(|((subset, id), actions)| RawVideo { id, subset: subset.to_owned(), duration: None, actions })
        .collect();
    Ok(raw)
}

fn fields(line: &str) -> Option<(&str, f64, f64)> {
    let mut words = line.split_whitespace();
    let (video, start, end) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then_some((video, start, end))
}

/// The actions of one class and subset.
struct TextFile {
    class: String,
    subset: &'static str,
    path: PathBuf,
    text: String,
}

/// The files by path; one that lies there twice is read once.
fn text_files(folder: &Path, findings: &mut Vec<Finding>) -> Result<Vec<TextFile>, DatasetError> {
    let walk =
        files_below(folder).map_err(|source| DatasetError::Read { path: folder.to_owned(), source })?;
    findings.extend(
        walk.unlisted
            .into_iter()
            .map(|(folder, error)| Finding::UnlistedFolder { folder, reason: error.to_string() }),
    );
    let mut files: BTreeMap<(&str, String), TextFile> = BTreeMap::new();
    for path in walk.files {
        let Some((class, subset)) = class_and_subset(&path) else { continue };
        let text = text::read(&path)?;
        match files.entry((subset, class.clone())) {
            Entry::Vacant(free) => {
                free.insert(TextFile { class, subset, path, text });
            }
            Entry::Occupied(taken) if taken.get().text == text => {
                findings.push(Finding::SameTextFile { first: taken.get().path.clone(), second: path });
            }
            Entry::Occupied(taken) => {
                return Err(DatasetError::TwoTextFiles { first: taken.get().path.clone(), second: path });
            }
        }
    }
    Ok(files.into_values().collect())
}

/// What the name of a text file says; other files, such as lists of classes, say nothing.
fn class_and_subset(path: &Path) -> Option<(String, &'static str)> {
    let is_text = path.extension()?.eq_ignore_ascii_case("txt");
    let (class, subset) = path.file_stem()?.to_str()?.rsplit_once('_').filter(|_| is_text)?;
    let subset = SUBSETS.into_iter().find(|known| known.eq_ignore_ascii_case(subset))?;
    Some((class.to_owned(), subset))
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
        raw.findings.push(Finding::Ambiguous { intervals });
    }
    if !undecided.is_empty() {
        raw.findings.push(Finding::OnlyAmbiguous { videos: undecided });
    }
    if !dropped.is_empty() {
        raw.findings.push(Finding::Disputed { videos: dropped });
    }
    raw
}
