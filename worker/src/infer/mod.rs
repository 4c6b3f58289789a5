//! FEATURES -> DETECTIONS IN SECONDS.
//!
//! Takes: logits and offsets of the windows of a video. Gives: `Detection`s, best first. Next: results and mAP.
//! Plain numbers in f32, no tensors but for the head's output: a video has a few thousand candidates, and the order of operations decides ties.

/// Logits and offsets become candidates.
pub mod decode;

/// Candidates that overlap become one.
pub mod nms;

mod remaining;

/// Scores of candidates that overlap decay.
pub mod soft;

/// Which windows a video is cut into, and how their candidates come together.
pub mod windows;

/// A whole video through the detector.
pub mod video;

use crate::model::heads::daotad::anchors::Segment;

/// One detected action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// From when to when, in seconds.
    pub segment: Segment,
    /// Between 0 and 1.
    pub score: f32,
    /// Class, from 0.
    pub label: usize,
}

/// Segments with a score for each class, before suppression.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Candidates {
    /// From when to when.
    pub segments: Vec<Segment>,
    /// Row by row, `classes` a segment.
    pub scores: Vec<f32>,
    /// Classes.
    pub classes: usize,
}

impl Candidates {
    /// Pairs of a segment and a class whose score exceeds `threshold`: segment by segment, class by class.
    pub fn above(&self, threshold: f32) -> Vec<Detection> {
        self.segments
            .iter()
            .zip(self.scores.chunks(self.classes.max(1)))
            .flat_map(|(segment, scores)| {
                scores
                    .iter()
                    .enumerate()
                    .filter(move |(_, score)| **score > threshold)
                    .map(|(label, score)| Detection { segment: *segment, score: *score, label })
            })
            .collect()
    }
}

#[cfg(test)]
mod naive;
#[cfg(test)]
mod suppression_tests;
#[cfg(test)]
mod tests;
