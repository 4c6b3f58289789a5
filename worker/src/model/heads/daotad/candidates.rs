//! Logits and offsets of one window become candidates (spec 40, section 10; TALLFormer `vedatad/bridge/converters`).

use burn::tensor::Tensor;

use super::HeadOutput;
use super::anchors::AnchorGrid;
use super::coder::decode_segment;
use crate::model::heads::Candidates;
use crate::tensors::host;

/// One level of one window, as the head gives it: channels first, then positions.
#[derive(Debug, Clone, Copy)]
pub struct LevelOutput<'a> {
    /// `[A K, T]`.
    pub class_logits: &'a [f32],
    /// `[A 2, T]`.
    pub offsets: &'a [f32],
}

/// Candidates of each sample of a batch: [`candidates`] of what the head gave.
pub fn of_batch(output: &HeadOutput, grid: &AnchorGrid, top_k: usize) -> Vec<Candidates> {
    let [samples, channels, _] = output.class_logits.first().map_or([0; 3], Tensor::dims);
    let classes = channels / grid.per_position().max(1);
    let of_sample = |sample: usize| {
        let on_host = |level: &Tensor<3>| host(level.clone().narrow(0, sample, 1));
        let levels: Vec<(Vec<f32>, Vec<f32>)> = output
            .class_logits
            .iter()
            .zip(&output.offsets)
            .map(|(logits, offsets)| (on_host(logits), on_host(offsets)))
            .collect();
        let levels: Vec<LevelOutput<'_>> =
            levels.iter().map(|(class_logits, offsets)| LevelOutput { class_logits, offsets }).collect();
        candidates(&levels, grid, classes, top_k)
    };
    (0..samples).map(of_sample).collect()
}

/// Candidates of one window, in frames from its start. Of a level with more than `top_k` anchors, those
/// with the best score of any class are kept.
pub fn candidates(levels: &[LevelOutput<'_>], grid: &AnchorGrid, classes: usize, top_k: usize) -> Candidates {
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
            all.segments.push(decode_segment(boxes[index], [offset(0), offset(1)]));
            all.scores.extend((0..classes).map(|class| score(index, class)));
        }
    }
    all
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
