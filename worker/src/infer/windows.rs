//! Windows that a video is tested in, and how their candidates come together (spec 40, section 10; TALLFormer
//! `vedatad/engines/infer_engine.py`).

use std::ops::Range;

use longtake_shared::config::{EvaluationConfig, PastEnd};
use longtake_shared::units::Seconds;

use super::Detection;
use super::nms::{Kept, Suppression};
use crate::model::heads::Candidates;

/// Where a window lies in its video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowPlace {
    /// Its first frame.
    pub start: usize,
    /// Its real frames, without padding; segments are clipped to them.
    pub frames: usize,
    /// Frames a second.
    pub fps: f32,
    /// What becomes of candidates that reach past the real frames.
    pub past_end: PastEnd,
}

impl WindowPlace {
    /// Candidates of the window as detections in seconds of the video: pairs of a segment and a class whose score exceeds
    /// `threshold`, segment by segment, class by class.
    pub fn detections(&self, candidates: &Candidates, threshold: f32) -> Vec<Detection> {
        let rows = candidates.segments.iter().zip(candidates.scores.chunks(candidates.classes.max(1)));
        let placed = rows.filter_map(|(segment, scores)| Some((self.clip(*segment)?, scores)));
        placed
            .flat_map(|(clipped, scores)| {
                let segment = clipped.map(|frame| (frame + self.start as f32) / self.fps);
                let above = scores.iter().enumerate().filter(move |(_, score)| **score > threshold);
                above.map(move |(label, score)| Detection { segment, score: *score, label })
            })
            .collect()
    }

    /// A segment in frames of the window, clipped to its real ones; nothing where it is no candidate.
    fn clip(&self, segment: [f32; 2]) -> Option<[f32; 2]> {
        let frames = self.frames as f32;
        let clipped = segment.map(|frame| frame.clamp(0.0, frames));
        let stays = match self.past_end {
            PastEnd::Clip => true,
            PastEnd::Drop => {
                let centre = (segment[0] + segment[1]) * 0.5;
                centre <= frames && (clipped[1] - clipped[0]) * 2.0 >= segment[1] - segment[0]
            }
        };
        // A model that has diverged gives offsets that are no numbers.
        (stays && clipped.iter().all(|frame| frame.is_finite())).then_some(clipped)
    }
}

/// Windows of at most `window` frames at multiples of `stride`, until one reaches the end of the video; the last one ends
/// there and may be shorter (it is padded with zeros). A stride of 0 counts as 1, a longer one than the window as the
/// window, so that every frame is seen.
pub fn test_windows(total_frames: usize, window: usize, stride: usize) -> Vec<Range<usize>> {
    let window = window.max(1);
    let stride = stride.clamp(1, window);
    let mut windows = Vec::new();
    let mut start = 0;
    loop {
        let end = (start + window).min(total_frames);
        windows.push(start..end);
        if end == total_frames {
            return windows;
        }
        start += stride;
    }
}

/// Frames between two test windows: `window` times `ratio`, rounded down.
pub fn window_stride(window: usize, ratio: f64) -> usize {
    (window as f64 * ratio) as usize
}

/// Detections of a video of some duration: those of all its windows above the score threshold, suppressed together.
pub fn merge_windows(detections: &[Detection], config: &EvaluationConfig, duration: Seconds) -> Kept {
    Suppression::from(config).apply(detections, config.most_detections(duration))
}
