//! Logits and offsets of one window become candidates (spec 40, section 10; TALLFormer `vedatad/bridge/converters`).

use burn::tensor::Tensor;
use longtake_shared::config::PastEnd;

use super::Candidates;
use crate::model::heads::HeadOutput;
use crate::model::heads::daotad::anchors::{AnchorGrid, Segment};
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
    /// What becomes of candidates that reach past the real frames.
    pub past_end: PastEnd,
}

impl WindowPlace {
    /// A segment in frames of the window, clipped to its real ones; nothing where it is no candidate.
    fn clip(&self, segment: Segment) -> Option<Segment> {
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

/// Candidates of one sample of a batch, in seconds from the start of its video: [`candidates`] of what the head gave.
pub fn sample_candidates(
    output: &HeadOutput,
    sample: usize,
    grid: &AnchorGrid,
    top_k: usize,
    place: WindowPlace,
) -> Candidates {
    let host = |levels: &[Tensor<3>]| -> Vec<Vec<f32>> {
        levels
            .iter()
            .map(|level| level.clone().narrow(0, sample, 1).into_data().iter::<f32>().collect())
            .collect()
    };
    let (logits, offsets) = (host(&output.class_logits), host(&output.offsets));
    let channels = output.class_logits.first().map_or(0, |level| level.dims()[1]);
    let levels: Vec<LevelOutput<'_>> = logits
        .iter()
        .zip(&offsets)
        .map(|(class_logits, offsets)| LevelOutput { class_logits, offsets })
        .collect();
    candidates(&levels, grid, channels / grid.per_position().max(1), top_k, place)
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
            let Some(segment) = place.clip(segment) else { continue };
            all.segments.push(segment.map(|frame| (frame + place.start as f32) / place.fps));
            all.scores.extend((0..classes).map(|class| score(index, class)));
        }
    }
    all
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
