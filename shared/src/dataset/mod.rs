//! Annotations of videos: what happens when. Readers report file, video and field, and count what they drop.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// Length as annotated.
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
}
