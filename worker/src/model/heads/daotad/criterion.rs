//! Targets of a batch, and the loss of a detector over anchors (spec 40, section 7; TALLFormer
//! `vedatad/criteria/segment_anchor_criterion.py`).

use burn::tensor::{Device, Int, Tensor, TensorData};
use longtake_shared::config::LossConfig;

use super::HeadOutput;
use super::anchors::{AnchorGrid, Segment};
use super::assigner::{AnchorTarget, Assigner};
use super::coder::decode;
use crate::loss::focal::sigmoid_focal;
use crate::loss::interval_iou::{self, SegmentLoss};
use crate::model::truth::LabelledSegment;

/// Targets of the anchors of one window. They need no features.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleTargets {
    /// One entry an anchor; an action is a position in `actions`.
    pub anchors: Vec<AnchorTarget>,
    /// What happens in the window.
    pub actions: Vec<LabelledSegment>,
    /// Actions that no anchor overlaps.
    pub unmatched: usize,
}

impl SampleTargets {
    /// Anchors that answer for an action.
    pub fn positives(&self) -> usize {
        self.anchors.iter().filter(|target| matches!(target, AnchorTarget::Action(_))).count()
    }
}

/// This rank's part of the normaliser: max(positives, 1) of each sample that is not idle (spec 50, section 2). The loss
/// is divided by the sum over ranks.
pub fn local_normaliser(targets: &[Option<SampleTargets>]) -> f32 {
    targets.iter().flatten().map(|targets| targets.positives().max(1) as f32).sum()
}

/// The loss of a batch, each part summed over anchors and divided by the global normaliser.
#[derive(Debug, Clone)]
pub struct LossParts {
    /// What is minimised: the sum of the two.
    pub total: Tensor<1>,
    /// Focal loss of the scores.
    pub class: Tensor<1>,
    /// Loss of the segments.
    pub regression: Tensor<1>,
}

/// Assigner, anchors and losses of a detector.
#[derive(Debug, Clone)]
pub struct Criterion {
    grid: AnchorGrid,
    assigner: Assigner,
    alpha: f64,
    gamma: f64,
    segment_loss: SegmentLoss,
}

impl Criterion {
    /// As configured.
    pub fn new(grid: AnchorGrid, config: &LossConfig) -> Self {
        Self {
            grid,
            assigner: config.into(),
            alpha: config.focal_alpha,
            gamma: config.focal_gamma,
            segment_loss: interval_iou::of_kind(config.regression),
        }
    }

    /// Where the anchors lie.
    pub fn grid(&self) -> &AnchorGrid {
        &self.grid
    }

    /// Targets of one window. `positions` are the lengths of the levels; anchors past the first `frames` frames take no
    /// part (pass the window's length to have all take part, as TALLFormer does for windows that are padded).
    pub fn targets(&self, positions: &[usize], frames: usize, actions: &[LabelledSegment]) -> SampleTargets {
        let valid = self.grid.valid(positions, frames);
        let anchors = self.grid.all(positions);
        let inside: Vec<Segment> =
            anchors.iter().zip(&valid).filter(|(_, valid)| **valid).map(|(anchor, _)| *anchor).collect();
        let segments: Vec<Segment> = actions.iter().map(|action| action.segment).collect();
        let assignment = self.assigner.assign(&inside, &segments, &[]);
        let mut assigned = assignment.targets.into_iter();
        let anchors = valid
            .into_iter()
            .map(|valid| if valid { assigned.next() } else { None }.unwrap_or(AnchorTarget::Ignored))
            .collect();
        SampleTargets { anchors, actions: actions.to_vec(), unmatched: assignment.unmatched }
    }

    /// The loss of a batch. A sample without targets is idle: it adds exactly zero, with gradients that are zero.
    /// `normaliser` is [`local_normaliser`] summed over all ranks; below 1 it counts as 1 (a batch of idle samples).
    ///
    /// # Shapes
    /// as [`HeadOutput`]; `targets` has one entry a sample
    pub fn forward(
        &self,
        output: &HeadOutput,
        targets: &[Option<SampleTargets>],
        normaliser: f32,
    ) -> LossParts {
        let per_position = self.grid.per_position();
        let logits = flatten(&output.class_logits, per_position);
        let offsets = flatten(&output.offsets, per_position);
        let normaliser = normaliser.max(1.0);
        let class = self.class_loss(logits, targets) / normaliser;
        let positions: Vec<usize> = output.offsets.iter().map(|level| level.dims()[2]).collect();
        let anchors = self.grid.all(&positions);
        let regression = regression_loss(self.segment_loss, offsets, &anchors, targets) / normaliser;
        LossParts { total: class.clone() + regression.clone(), class, regression }
    }

    /// # Shapes
    /// `[B, N, K]` -> `[1]`
    fn class_loss(&self, logits: Tensor<3>, targets: &[Option<SampleTargets>]) -> Tensor<1> {
        let [batch, anchors, classes] = logits.dims();
        let device = logits.device();
        let mut wanted = vec![0f32; batch * anchors * classes];
        let mut counted = vec![0f32; batch * anchors];
        for (sample, targets) in targets.iter().enumerate().filter_map(|(i, t)| Some((i, t.as_ref()?))) {
            for (anchor, target) in targets.anchors.iter().enumerate() {
                let row = sample * anchors + anchor;
                match target {
                    AnchorTarget::Ignored => continue,
                    AnchorTarget::Background => {}
                    AnchorTarget::Action(action) => {
                        wanted[row * classes + targets.actions[*action].label] = 1.0;
                    }
                }
                counted[row] = 1.0;
            }
        }
        let wanted = Tensor::from_data(TensorData::new(wanted, [batch, anchors, classes]), &device);
        let counted = Tensor::<3>::from_data(TensorData::new(counted, [batch, anchors, 1]), &device);
        let loss = sigmoid_focal(logits, wanted, self.alpha, self.gamma) * counted;
        loss.sum_dim(2).sum_dim(1).sum_dim(0).reshape([1])
    }
}

/// Loss of the anchors that answer for an action; a zero that hangs on the offsets where there are none.
///
/// # Shapes
/// `[B, N, 2]` -> `[1]`
fn regression_loss(
    loss: SegmentLoss,
    offsets: Tensor<3>,
    anchors: &[Segment],
    targets: &[Option<SampleTargets>],
) -> Tensor<1> {
    let [batch, count, _] = offsets.dims();
    let device = offsets.device();
    let mut rows: Vec<i32> = Vec::new();
    let mut sources = Vec::new();
    let mut truths = Vec::new();
    for (sample, targets) in targets.iter().enumerate().filter_map(|(i, t)| Some((i, t.as_ref()?))) {
        for (anchor, target) in targets.anchors.iter().enumerate() {
            if let AnchorTarget::Action(action) = target {
                rows.push((sample * count + anchor) as i32);
                sources.push(anchors[anchor]);
                truths.push(targets.actions[*action].segment);
            }
        }
    }
    let offsets = offsets.reshape([batch * count, 2]);
    if rows.is_empty() {
        return (offsets.sum_dim(1) * 0.0).sum_dim(0).reshape([1]);
    }
    let rows_count = rows.len();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [rows_count]), &device);
    let predicted = decode(&segment_tensor(&sources, &device), &offsets.select(0, rows));
    loss(predicted, segment_tensor(&truths, &device)).sum_dim(0).reshape([1])
}

/// # Shapes
/// N segments -> `[N, 2]`
fn segment_tensor(segments: &[Segment], device: &Device) -> Tensor<2> {
    let values: Vec<f32> = segments.iter().flatten().copied().collect();
    Tensor::from_data(TensorData::new(values, [segments.len(), 2]), device)
}

/// Levels side by side, anchor by anchor in the order of [`AnchorGrid::all`].
///
/// # Shapes
/// level l: `[B, A V, T_l]` -> `[B, sum of T_l A, V]`
fn flatten(levels: &[Tensor<3>], anchors: usize) -> Tensor<3> {
    let levels = levels
        .iter()
        .map(|level| {
            let [batch, channels, positions] = level.dims();
            level.clone().swap_dims(1, 2).reshape([batch, positions * anchors, channels / anchors])
        })
        .collect();
    Tensor::cat(levels, 1)
}
