//! Detector over anchors: neck and retina head (spec 40).
//!
//! Takes: features of the whole window, fresh and remembered, `[B, C, T]`. Gives: logits and offsets a level.
//! Next: `crate::loss` in training, `crate::infer` else.

/// Anchors of all levels.
pub mod anchors;

/// Offsets to segments and back.
pub mod coder;

/// Convolutions that are shared by all levels.
pub mod retina;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use longtake_shared::config::{HeadConfig, NeckConfig};

use self::retina::{RetinaHead, RetinaShape};
use super::HeadOutput;
use crate::model::layers::Init;
use crate::model::norm::MomentsReducer;
use crate::model::pass::Pass;
use crate::model::tcm::consistency::{Tcm, TcmShape, TooLong};
use crate::model::tcm::fpn::Fpn;
use crate::model::tcm::srm::TemporalReduction;
use crate::model::tcm::tdm::{Tdm, TdmShape};

/// Everything after the backbone. The paths of its parameters are the published keys: `neck.0` to `neck.3`, `head`.
#[derive(Module, Debug)]
pub struct DetectorHead {
    /// Temporal reduction, TCM, TDM, FPN: a tuple, since published keys number them.
    pub neck: (TemporalReduction, Tcm, Tdm, Fpn),
    /// Scores and offsets.
    pub head: RetinaHead,
}

/// What a detector's sizes follow from, beside its settings.
#[derive(Debug, Clone, Copy)]
pub struct DetectorShape {
    /// Channels of the backbone's features.
    pub features: usize,
    /// Temporal positions of the features of a full window: its frames over the backbone's temporal stride.
    pub positions: usize,
    /// Classes of the data set.
    pub classes: usize,
}

impl DetectorHead {
    /// A detector with fresh parameters.
    pub fn new(neck: &NeckConfig, head: &HeadConfig, shape: DetectorShape, init: &Init) -> Self {
        let part = |index| init.item("neck", index);
        let tcm = TcmShape {
            channels: neck.channels,
            heads: neck.tcm_heads,
            max_length: TemporalReduction::reduced_length(shape.positions).max(1),
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
        Self {
            neck: (
                TemporalReduction::new(&part(0), shape.features, neck.channels),
                Tcm::new(&part(1), tcm),
                Tdm::new(&part(2), &tdm),
                Fpn::new(&part(3), levels, neck.channels, neck.fpn_channels),
            ),
            head: RetinaHead::new(
                &init.field("head"),
                RetinaShape {
                    inputs: neck.fpn_channels,
                    channels: neck.fpn_channels,
                    convs: head.convs,
                    anchors: head.scales_per_octave,
                    classes: shape.classes,
                },
            ),
        }
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
    ) -> Result<HeadOutput, TooLong> {
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
mod tests;
