//! Retina head: two towers of convolutions, the same weights and normalisations for all levels.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Tensor, activation};

use super::HeadOutput;
use crate::model::conv1d::{Conv1d, ConvShape};
use crate::model::layers::{Fill, Init};
use crate::model::neck::fpn::ConvNorm;
use crate::model::norm::{MomentsReducer, NormInput, PendingStatistics, batch_norm};
use crate::model::pass::Pass;

/// Sizes of a retina head.
#[derive(Debug, Clone, Copy)]
pub struct RetinaShape {
    /// Channels of the pyramid.
    pub inputs: usize,
    /// Channels of the towers.
    pub channels: usize,
    /// Convolutions of each tower.
    pub convs: usize,
    /// Anchors a position.
    pub anchors: usize,
    /// Classes.
    pub classes: usize,
}

/// Score that every class begins with (spec 40, section 4).
const PRIOR: f32 = 0.01;

/// Standard deviation that convolutions begin with (spec 40, section 4).
const STD: f64 = 0.01;

/// Towers for scores and for offsets (spec 40, section 4; TALLFormer `vedatad/models/heads/retina_head.py`).
#[derive(Module, Debug)]
pub struct RetinaHead {
    /// Tower of the scores.
    pub cls_convs: Vec<ConvNorm>,
    /// Tower of the offsets.
    pub reg_convs: Vec<ConvNorm>,
    /// Anchors times classes.
    pub retina_cls: Conv1d,
    /// Anchors times 2.
    pub retina_reg: Conv1d,
}

impl RetinaHead {
    /// Normal convolutions; every score begins at 0.01.
    pub fn new(init: &Init, shape: RetinaShape) -> Self {
        let fill = Fill::Normal(STD);
        let tower = |name| {
            (0..shape.convs)
                .map(|index| {
                    let inputs = if index == 0 { shape.inputs } else { shape.channels };
                    let conv = ConvShape::new(inputs, shape.channels, 3);
                    ConvNorm::new(&init.item(name, index), conv, fill)
                })
                .collect()
        };
        let last = |name, outputs, bias| {
            let conv = ConvShape::new(shape.channels, outputs, 3);
            Conv1d::new(&init.field(name), conv, fill, Some(Fill::Constant(bias)))
        };
        Self {
            cls_convs: tower("cls_convs"),
            reg_convs: tower("reg_convs"),
            retina_cls: last("retina_cls", shape.anchors * shape.classes, -((1.0 - PRIOR) / PRIOR).ln()),
            retina_reg: last("retina_reg", shape.anchors * 2, 0.0),
        }
    }

    /// `prefix` is what stands before this module's paths, e.g. `head.`; `weights` as in [`batch_norm`].
    ///
    /// # Shapes
    /// level l: `[B, C, T_l]` -> `[B, A K, T_l]` and `[B, A 2, T_l]`
    pub fn forward(
        &self,
        levels: &[Tensor<3>],
        prefix: &str,
        weights: &[f32],
        pass: Pass<'_>,
        reducer: &Arc<dyn MomentsReducer>,
    ) -> HeadOutput {
        let mut classes = levels.to_vec();
        let mut offsets = levels.to_vec();
        let mut statistics = Vec::new();
        for (index, (class_conv, offset_conv)) in self.cls_convs.iter().zip(&self.reg_convs).enumerate() {
            let mut inputs = norm_inputs(class_conv, &classes, &format!("{prefix}cls_convs.{index}.bn"));
            inputs.extend(norm_inputs(offset_conv, &offsets, &format!("{prefix}reg_convs.{index}.bn")));
            let (outputs, more): (Vec<_>, Vec<PendingStatistics>) =
                batch_norm(inputs, weights, pass, reducer);
            statistics.extend(more);
            let mut outputs = outputs.into_iter().map(activation::relu);
            classes = outputs.by_ref().take(levels.len()).collect();
            offsets = outputs.collect();
        }
        HeadOutput {
            class_logits: self.retina_cls.forward_levels(&classes),
            offsets: self.retina_reg.forward_levels(&offsets),
            statistics,
        }
    }
}

/// All levels through one convolution, in level order: the shared normalisation takes one momentum step a level.
fn norm_inputs<'a>(conv: &'a ConvNorm, levels: &[Tensor<3>], path: &str) -> Vec<NormInput<'a>> {
    conv.conv
        .forward_levels(levels)
        .into_iter()
        .map(|x| NormInput { path: path.to_owned(), layer: &conv.bn, x })
        .collect()
}
