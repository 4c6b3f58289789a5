//! DaoTAD as TALLFormer uses it on THUMOS14: neck and retina head over anchors (spec 40).
//!
//! Takes: features of whole windows, fresh and remembered, `[B, C, T]`. Gives: their loss, or their candidates.
//! Next: `crate::train` goes backward, `crate::infer` merges candidates.

/// Anchors of all levels.
pub mod anchors;

/// Which anchor is matched with which action.
pub mod assigner;

/// Logits and offsets become candidates.
pub mod candidates;

/// Offsets to segments and back.
pub mod coder;

/// Targets of a batch and its loss.
pub mod criterion;

/// Convolutions that are shared by all levels.
pub mod retina;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use longtake_shared::config::{RunConfig, TEMPORAL_REDUCTION};

use self::anchors::{AnchorGrid, level_lengths};
use self::criterion::{Criterion, SampleTargets, local_normaliser};
use self::retina::{RetinaHead, RetinaShape};
use super::{Candidates, HeadError, HeadPass, Judged, WindowBatch};
use crate::model::layers::Init;
use crate::model::neck::consistency::{Tcm, TcmShape};
use crate::model::neck::fpn::Fpn;
use crate::model::neck::tdm::{Tdm, TdmShape};
use crate::model::neck::temporal_reduction::TemporalReduction;
use crate::model::norm::{MomentsReducer, PendingStatistics};
use crate::model::pass::Pass;
use crate::model::truth::Truth;
use crate::tensors::host;

/// Parts of the loss: focal loss of the scores, DIoU loss of the segments.
pub const TERMS: [&str; 2] = ["class_loss", "regression_loss"];

/// Everything after the backbone. The paths of its parameters are the published keys: `neck.0` to `neck.3`, `head`.
#[derive(Module, Debug)]
pub struct DaoTad {
    /// Temporal reduction, TCM, TDM, FPN: a tuple, since published keys number them.
    pub neck: (TemporalReduction, Tcm, Tdm, Fpn),
    /// Scores and offsets.
    pub head: RetinaHead,
    #[module(skip)]
    criterion: Criterion,
    #[module(skip)]
    window: Window,
}

/// Sizes of a full window.
#[derive(Debug, Clone)]
struct Window {
    /// Frames.
    frames: usize,
    /// Positions of each pyramid level.
    levels: Vec<usize>,
}

/// What the head says about a batch of windows, level by level.
#[derive(Debug, Clone)]
pub struct HeadOutput {
    /// Logits `[B, A K, T_l]`: channel = anchor K + class.
    pub class_logits: Vec<Tensor<3>>,
    /// Centre and log-length offsets `[B, A 2, T_l]`: channel = anchor 2 + {0: centre, 1: length}.
    pub offsets: Vec<Tensor<3>>,
    /// Statistics of a training pass, to be installed when the step has been committed.
    pub statistics: Vec<PendingStatistics>,
}

impl DaoTad {
    /// Fresh parameters for this many classes.
    pub fn new(config: &RunConfig, classes: usize, init: &Init) -> Self {
        let (geometry, neck, head) = (config.geometry(), &config.model.neck, &config.model.head);
        let positions = TemporalReduction::reduced_length(geometry.positions);
        let part = |index| init.item("neck", index);
        let tcm = TcmShape {
            channels: neck.channels,
            heads: neck.tcm_heads,
            max_length: positions.max(1),
            layers: neck.tcm_layers,
            qkv_bias: neck.tcm_qkv_bias,
            drop_path: neck.tcm_drop_path,
        };
        let tdm = TdmShape {
            channels: neck.channels,
            heads: neck.tdm_heads,
            hidden: TDM_HIDDEN_RATIO * neck.channels,
            dropout: neck.tdm_dropout,
            kernels: neck.tdm_kernels.clone(),
        };
        let levels = neck.tdm_kernels.len() + 1;
        let retina = RetinaShape {
            inputs: neck.fpn_channels,
            channels: neck.fpn_channels,
            convs: head.convs,
            anchors: head.scales_per_octave,
            classes,
        };
        let strides = neck.strides(geometry.stride * TEMPORAL_REDUCTION);
        Self {
            neck: (
                TemporalReduction::new(&part(0), geometry.channels, neck.channels),
                Tcm::new(&part(1), tcm),
                Tdm::new(&part(2), &tdm),
                Fpn::new(&part(3), levels, neck.channels, neck.fpn_channels),
            ),
            head: RetinaHead::new(&init.field("head"), retina),
            criterion: Criterion::new(AnchorGrid::from_config(&strides, head), &config.model.loss),
            window: Window { frames: config.data.window_frames, levels: level_lengths(positions, levels) },
        }
    }

    /// COUNT: the sum of max(positive anchors, 1) over this rank's samples.
    pub fn count(&self, truth: &[Option<Truth>]) -> f32 {
        local_normaliser(&self.targets(truth))
    }

    /// JUDGE: what [`super::Localizer::judge`] says. Padding takes part as in TALLFormer: all anchors of the window do.
    ///
    /// # Errors
    /// The window is longer than the TCM's position table.
    pub fn judge(
        &self,
        batch: &WindowBatch<'_>,
        truth: &[Option<Truth>],
        normaliser: f32,
        cx: HeadPass<'_>,
    ) -> Result<Judged, HeadError> {
        let targets = self.targets(truth);
        let output = self.forward(batch.features_bct.clone(), batch.weights, cx.pass, cx.sums)?;
        let parts = self.criterion.forward(&output, &targets, normaliser);
        let terms = [parts.class, parts.regression].map(|term| host(term.inner())[0]).to_vec();
        let positives = targets.iter().flatten().map(SampleTargets::positives).sum();
        Ok(Judged { total: parts.total, terms, positives, statistics: output.statistics })
    }

    /// DETECT: what [`super::Localizer::detect`] says.
    ///
    /// # Errors
    /// The window is longer than the TCM's position table.
    pub fn detect(
        &self,
        batch: &WindowBatch<'_>,
        top_k: usize,
        cx: HeadPass<'_>,
    ) -> Result<Vec<Candidates>, HeadError> {
        let output = self.forward(batch.features_bct.clone(), batch.weights, cx.pass, cx.sums)?;
        Ok(candidates::of_batch(&output, self.criterion.grid(), top_k))
    }

    /// What the anchors of each sample are to say.
    pub fn targets(&self, truth: &[Option<Truth>]) -> Vec<Option<SampleTargets>> {
        let Window { frames, levels } = &self.window;
        let of_sample = |truth: &Truth| self.criterion.targets(levels, *frames, &truth.actions);
        truth.iter().map(|truth| truth.as_ref().map(of_sample)).collect()
    }

    /// One pass over a batch of windows. In a training pass `weights` (one a sample, 0 for an idle lane) says whose
    /// features enter batch statistics, and `pass` has one key a sample. An idle sample's features must be finite; zeros do.
    ///
    /// # Shapes
    /// `[B, C, T]` -> level l: `[B, A K, T_l]` and `[B, A 2, T_l]`
    ///
    /// # Errors
    /// When the window is longer than the TCM's position table.
    pub fn forward(
        &self,
        features: Tensor<3>,
        weights: &[f32],
        pass: Pass<'_>,
        moments: &Arc<dyn MomentsReducer>,
    ) -> Result<HeadOutput, HeadError> {
        let (reduction, tcm, tdm, fpn) = &self.neck;
        let consistent = tcm.forward(reduction.forward(features), pass)?;
        let levels = tdm.forward(consistent, pass);
        let (levels, mut statistics) = fpn.forward(&levels, "neck.3.", weights, pass, moments);
        let mut output = self.head.forward(&levels, "head.", weights, pass, moments);
        statistics.append(&mut output.statistics);
        Ok(HeadOutput { statistics, ..output })
    }
}

/// Hidden width of the TDM's feed-forward layers over its width (spec 40, section 2: 2048 / 512).
const TDM_HIDDEN_RATIO: usize = 4;

#[cfg(test)]
mod criterion_tests;
#[cfg(test)]
mod tests;
