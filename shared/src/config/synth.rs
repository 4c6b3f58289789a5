//! A small data set of real H.264 videos whose actions are known.

use serde::{Deserialize, Serialize};

use crate::units::Seconds;

/// What `longtake synth` makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SynthConfig {
    /// Videos of the training subset.
    pub training_videos: usize,
    /// Videos of the validation subset.
    pub validation_videos: usize,
    /// Shortest video.
    pub min_duration: Seconds,
    /// Longest video.
    pub max_duration: Seconds,
    /// Frames a second.
    pub fps: f64,
    /// Width of the picture in pixels.
    pub width: usize,
    /// Height of the picture in pixels.
    pub height: usize,
    /// Classes of actions, at most as many as there are kinds of movement.
    pub classes: usize,
    /// Seed of everything random in the videos.
    pub seed: u64,
}

impl Default for SynthConfig {
    fn default() -> Self {
        Self {
            training_videos: 24,
            validation_videos: 10,
            min_duration: Seconds(20.0),
            max_duration: Seconds(40.0),
            fps: 15.0,
            width: 128,
            height: 96,
            classes: 4,
            seed: 7,
        }
    }
}
