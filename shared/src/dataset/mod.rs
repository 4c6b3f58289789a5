//! Annotations of videos: what happens when. Readers report file, video and field, and count what they drop.

mod activitynet;
mod assemble;
mod check;
mod error;
mod files;
mod subsets;
#[cfg(test)]
mod tests;
mod thumos14;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use check::{
    CheckReport, ClassCount, DecoderKind, ProbedVideo, Problem, SubsetCount, check, length_problems,
};
pub use error::DatasetError;
pub use files::is_video;

pub(crate) use activitynet::{SubsetActions, read_subset};
pub(crate) use assemble::read_blocked;
pub(crate) use thumos14::DISPUTED;

use crate::config::{AnnotationFormat, DataConfig};
use crate::ids::VideoIndex;
use crate::units::Seconds;

/// A data set as a run uses it: named classes, training and validation videos.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// Names of the classes; a label is a position here.
    pub classes: Vec<String>,
    /// All videos of both subsets, sorted by subset (training first), then by id.
    pub videos: Vec<Video>,
    /// What was dropped or renamed while reading, as sentences for the log.
    pub remarks: Vec<String>,
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
    if missing.is_empty() {
        return Ok(dataset);
    }
    Err(DatasetError::MissingVideos {
        folder: config.videos.clone(),
        count: missing.len(),
        videos: dataset.videos.len(),
        first: missing.into_iter().take(10).collect(),
    })
}

/// Reads annotations alone, to judge results where the videos are not at hand: every path is empty.
///
/// # Errors
/// What [`load`] refuses, except videos without a file.
pub fn annotations(config: &DataConfig) -> Result<Dataset, DatasetError> {
    Ok(assemble::assemble(config, None)?.0)
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

/// Everything a reader hands over.
#[derive(Debug, Clone, PartialEq, Default)]
struct Raw {
    videos: Vec<RawVideo>,
    remarks: Vec<String>,
    /// Numbers of classes, where the annotations give them beside the names.
    numbers: BTreeMap<String, u32>,
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
