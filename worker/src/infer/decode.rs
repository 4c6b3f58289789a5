//! Logits and offsets of one window become candidates (spec 40, section 10; TALLFormer `vedatad/bridge/converters`).

use super::Candidates;
use crate::model::heads::daotad::anchors::AnchorGrid;
use crate::model::heads::daotad::coder::decode_segment;

/// One level of one window, as the head gives it: channels first, then positions.
#[derive(Debug, Clone, Copy)]
pub struct LevelOutput<'a> {
    /// `[A K, T]`.
    pub class_logits: &'a [f32],
    /// `[A 2, T]`.
    pub offsets: &'a [f32],
}

/// Where a window lies in its video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowPlace {
    /// Its first frame.
    pub start: usize,
    /// Its real frames, without padding; segments are clipped to them.
    pub frames: usize,
    /// Frames a second.
    pub fps: f32,
}

/// Candidates of one window, in seconds from the start of the video. Of a level with more than `top_k` anchors, those
/// with the best score of any class are kept.
pub fn candidates(
    levels: &[LevelOutput<'_>],
    grid: &AnchorGrid,
    classes: usize,
    top_k: usize,
    place: WindowPlace,
) -> Candidates {
    let mut all = Candidates { classes, ..Candidates::default() };
    let anchors = grid.per_position();
    for (level, output) in levels.iter().enumerate() {
        let positions = output.offsets.len() / (2 * anchors);
        let score = |index: usize, class: usize| {
            let (position, anchor) = (index / anchors, index % anchors);
            sigmoid(output.class_logits[(anchor * classes + class) * positions + position])
        };
        let best = |index: usize| (0..classes).map(|class| score(index, class)).fold(0.0, f32::max);
        let boxes = grid.level(level, positions);
        let mut kept: Vec<usize> = (0..boxes.len()).collect();
        if kept.len() > top_k {
            let best: Vec<f32> = kept.iter().map(|index| best(*index)).collect();
            kept.sort_by(|a, b| best[*b].total_cmp(&best[*a]));
            kept.truncate(top_k);
        }
        for index in kept {
            let (position, anchor) = (index / anchors, index % anchors);
            let offset = |part: usize| output.offsets[(anchor * 2 + part) * positions + position];
            let segment = decode_segment(boxes[index], [offset(0), offset(1)]);
            all.segments.push(
                segment.map(|frame| (frame.clamp(0.0, place.frames as f32) + place.start as f32) / place.fps),
            );
            all.scores.extend((0..classes).map(|class| score(index, class)));
        }
    }
    all
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
