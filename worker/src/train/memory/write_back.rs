//! Rows that are written back to the memory once their step is committed.

use longtake_shared::ids::{LaneId, Step, VideoIndex};

/// Rows that are written back once their step is committed.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingRows {
    /// Steps done once it is: the writer of the rows.
    pub step: Step,
    /// The rows.
    pub rows: Vec<WriteBack>,
}

/// Fresh features of neighbouring positions of a video.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteBack {
    /// The lane.
    pub lane: LaneId,
    /// The video.
    pub video: VideoIndex,
    /// Position of the first row; negative before the video's start.
    pub first_row: i64,
    /// `[rows, C]`.
    pub values: Vec<f32>,
}
