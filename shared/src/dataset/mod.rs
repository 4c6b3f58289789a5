//! Annotations of videos: what happens when. Readers report file, video and field, and count what they drop.

mod activitynet;
mod assemble;
mod check;
mod error;
mod files;
mod finding;
mod labels;
mod sameness;
mod subset_actions;
mod subsets;
#[cfg(test)]
mod tests;
mod thumos14;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use check::{
    CheckReport, ClassCount, DecoderKind, Examined, ProbedVideo, Problem, SubsetCount, Unreadable, check,
    length_problems,
};
pub use error::{DatasetError, MissingVideo, NamedBy, Reader};
pub use files::videos_below;
pub use finding::{Finding, Mending, Severity, Shared};

pub(crate) use assemble::Blocked;
pub(crate) use subset_actions::{SubsetActions, read_subset};
pub(crate) use thumos14::DISPUTED;

use crate::config::{AnnotationFormat, DataConfig};
use crate::ids::VideoIndex;
use crate::json::Place;
use crate::units::Seconds;

/// A data set as a run uses it: named classes, training and validation videos.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// Names of the classes; a label is a position here.
    pub classes: Vec<String>,
    /// All videos of both subsets, sorted by subset (training first), then by id.
    pub videos: Vec<Video>,
    /// What was dropped, renamed or taken for something else while reading; errors among it only in [`check()`].
    pub remarks: Vec<Finding>,
}

/// Which part of a run a video serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subset {
    /// Trained on.
    Training,
    /// Evaluated on.
    Validation,
}

impl Subset {
    /// As messages and settings write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Validation => "validation",
        }
    }
}

/// One annotated video.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Video {
    /// Name in the annotations, and in results.
    pub id: String,
    /// Which part of the run it serves.
    pub subset: Subset,
    /// The file.
    pub path: PathBuf,
    /// Length as annotated; 0 where the annotations do not say (THUMOS14's text files).
    pub duration: Seconds,
    /// What happens, sorted by start.
    pub actions: Vec<Action>,
}

/// One annotated action.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Where it starts.
    pub start: Seconds,
    /// Where it ends; greater than the start.
    pub end: Seconds,
    /// Position of its class in [`Dataset::classes`].
    pub label: usize,
}

/// Reads annotations and finds the video files.
///
/// # Errors
/// Unreadable or malformed files, subset names and labels that mean nothing, videos without a file, an empty subset.
pub fn load(config: &DataConfig) -> Result<Dataset, DatasetError> {
    let files = files::Listing::of(&config.videos)?;
    let (dataset, missing) = assemble::assemble(config, Some(&files))?;
    if !missing.is_empty() {
        let (folder, videos) = (config.videos.clone(), dataset.videos.len());
        return Err(DatasetError::MissingVideos { folder, videos, missing });
    }
    dataset.without_errors()
}

/// Reads annotations alone, to judge results where the videos are not at hand: every path is empty.
///
/// # Errors
/// What [`load`] refuses, except videos without a file.
pub fn annotations(config: &DataConfig) -> Result<Dataset, DatasetError> {
    assemble::assemble(config, None)?.0.without_errors()
}

impl Dataset {
    /// Positions of a subset's videos.
    pub fn subset(&self, subset: Subset) -> Vec<VideoIndex> {
        (0u32..)
            .zip(&self.videos)
            .filter(|(_, video)| video.subset == subset)
            .map(|(index, _)| VideoIndex(index))
            .collect()
    }

    /// The same, unless something was found that must not count as it stands.
    fn without_errors(mut self) -> Result<Self, DatasetError> {
        let is_error = |finding: &Finding| finding.severity() == Severity::Error;
        if self.remarks.iter().any(is_error) {
            self.remarks.retain(is_error);
            return Err(DatasetError::Refused { findings: self.remarks });
        }
        Ok(self)
    }

    /// A video by its position.
    pub fn video(&self, index: VideoIndex) -> &Video {
        &self.videos[index.index()]
    }

    /// A hash of classes, ids, subsets, actions and file sizes: a checkpoint goes on only with the data it was made on.
    ///
    /// # Errors
    /// A video file that is not there.
    pub fn fingerprint(&self) -> Result<String, DatasetError> {
        let mut hasher = blake3::Hasher::new();
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        text(&self.classes.len().to_string());
        self.classes.iter().for_each(|class| text(class));
        for video in &self.videos {
            let size = std::fs::metadata(&video.path)
                .map_err(|source| DatasetError::Read { path: video.path.clone(), source })?
                .len();
            text(&video.id);
            text(&format!("{:?} {size} {}", video.subset, video.actions.len()));
            for action in &video.actions {
                text(&format!("{:?} {:?} {}", action.start.0, action.end.0, action.label));
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// One video as its file has it, before subsets, classes and lengths are understood.
#[derive(Debug, Clone, PartialEq)]
struct RawVideo {
    id: String,
    subset: String,
    duration: Option<f64>,
    actions: Vec<RawAction>,
}

#[derive(Debug, Clone, PartialEq)]
struct RawAction {
    label: RawLabel,
    start: f64,
    end: f64,
}

/// A class as an annotation names it.
#[derive(Debug, Clone, PartialEq)]
enum RawLabel {
    Name(String),
    /// A position in a class list that the annotations do not hold.
    Id(usize),
}

/// An entry that cannot be understood; it matters where its subset is used.
#[derive(Debug, Clone, PartialEq)]
struct OddEntry {
    id: String,
    subset: String,
    path: PathBuf,
    place: Place,
    message: String,
}

/// Everything a reader hands over.
#[derive(Debug, Clone, PartialEq, Default)]
struct Raw {
    videos: Vec<RawVideo>,
    odd: Vec<OddEntry>,
    findings: Vec<Finding>,
    /// Numbers of classes, where the annotations give them beside the names.
    numbers: BTreeMap<String, u32>,
}

impl Raw {
    /// The subsets that entries name.
    fn subsets(&self) -> Vec<String> {
        let odd = self.odd.iter().map(|entry| &entry.subset);
        let names: BTreeSet<&String> = self.videos.iter().map(|video| &video.subset).chain(odd).collect();
        names.into_iter().filter(|name| !name.trim().is_empty()).cloned().collect()
    }

    /// Tells what is left out beside the chosen subsets. An odd entry of a chosen one is an error.
    fn leave_out(&mut self, chosen: &[&str]) -> Result<(), DatasetError> {
        let counts = |entry: &OddEntry| chosen.contains(&entry.subset.as_str());
        let mut odd = std::mem::take(&mut self.odd);
        if let Some(position) = odd.iter().position(counts) {
            let OddEntry { id, path, place, message, .. } = odd.swap_remove(position);
            return Err(DatasetError::BadEntry { path, video: id, place, message });
        }
        let videos = self.videos.iter().map(|video| (video.subset.as_str(), video.id.as_str()));
        self.findings.extend(subsets::left_out(chosen, videos));
        if let Some(OddEntry { place, message, .. }) = odd.first() {
            let message = format!("{place}: {message}");
            let videos = odd.into_iter().map(|entry| entry.id).collect();
            self.findings.push(Finding::OddEntries { videos, message });
        }
        Ok(())
    }
}

fn read(config: &DataConfig) -> Result<Raw, DatasetError> {
    if config.annotations.is_empty() {
        return Err(DatasetError::NotSet { key: "data.annotations" });
    }
    let path = PathBuf::from(&config.annotations);
    let clean = |raw| thumos14::clean(raw, config.disputed_videos);
    match (config.format, path.is_dir()) {
        (AnnotationFormat::ActivityNet, true) => Err(DatasetError::FolderNotFile { path }),
        (AnnotationFormat::ActivityNet, false) => activitynet::read(&path),
        (AnnotationFormat::Thumos14, true) => thumos14::read_folder(&path).map(clean),
        (AnnotationFormat::Thumos14, false) => activitynet::read(&path).map(clean),
    }
}
