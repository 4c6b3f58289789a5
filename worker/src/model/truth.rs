//! What is annotated in a window: what a localizer learns from.

use longtake_shared::ids::VideoIndex;

/// One action, as far as it lies in a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelledSegment {
    /// Start and end in frames from the start of the window.
    pub segment: [f32; 2],
    /// Its class, from 0.
    pub label: usize,
}

/// The annotations of one window.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// The video.
    pub video: VideoIndex,
    /// Frames a second at which this video is sampled; videos that are resampled as a whole each have their own rate.
    pub fps: f64,
    /// The actions, sorted by start.
    pub actions: Vec<LabelledSegment>,
}
