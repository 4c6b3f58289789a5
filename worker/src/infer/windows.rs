//! Windows that a video is tested in, and how their candidates come together (spec 40, section 10; TALLFormer
//! `vedatad/engines/infer_engine.py`).

use std::ops::Range;

use longtake_shared::config::EvaluationConfig;
use longtake_shared::units::Seconds;

use super::Detection;
use super::nms::{Kept, Suppression};

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
