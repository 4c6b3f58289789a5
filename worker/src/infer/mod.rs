//! FEATURES -> DETECTIONS IN SECONDS.
//!
//! Takes: candidates of the windows of a video. Gives: `Detection`s, best first. Next: results and mAP.
//! Plain numbers in f32, no tensors: a video has a few thousand candidates, and the order of operations decides ties.

/// Candidates that overlap become one.
pub mod nms;

mod remaining;

/// Scores of candidates that overlap decay.
pub mod soft;

/// Which windows a video is cut into, and how their candidates come together.
pub mod windows;

/// A whole video through the detector.
pub mod video;

/// One detected action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// From when to when, in seconds.
    pub segment: [f32; 2],
    /// Between 0 and 1.
    pub score: f32,
    /// Class, from 0.
    pub label: usize,
}

#[cfg(test)]
mod naive;
#[cfg(test)]
mod suppression_tests;
#[cfg(test)]
mod tests;
