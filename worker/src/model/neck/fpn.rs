//! Feature pyramid over time: what coarse levels know reaches the fine ones.
//!
//! Takes: one map `[B, C, T_l]` a level. Gives: as many maps with the pyramid's channels. Next: the head.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};

use crate::model::conv1d::{Conv1d, ConvShape};
use crate::model::layers::{Fill, Init};
use crate::model::norm::{BatchNorm, MomentsReducer, NormInput, PendingStatistics, batch_norm};
use crate::model::pass::Pass;

/// A convolution without bias and the batch normalisation after it.
#[derive(Module, Debug)]
pub struct ConvNorm {
    /// The convolution.
    pub conv: Conv1d,
    /// The normalisation.
    pub bn: BatchNorm,
}

impl ConvNorm {
    /// A convolution whose weight begins as `fill`.
    pub fn new(init: &Init, shape: ConvShape, fill: Fill) -> Self {
        Self {
            conv: Conv1d::new(&init.field("conv"), shape, fill, None),
            bn: BatchNorm::new(&init.field("bn"), shape.outputs),
        }
    }
}

/// Lateral 1x1 convolutions, sums from coarse to fine, 3x3 convolutions; no activation (spec 40, section 3; TALLFormer
/// `vedatad/models/necks/fpn.py`).
#[derive(Module, Debug)]
pub struct Fpn {
    /// One a level, kernel 1.
    pub lateral_convs: Vec<ConvNorm>,
    /// One a level, kernel 3.
    pub fpn_convs: Vec<ConvNorm>,
}

impl Fpn {
    /// Xavier convolutions.
    pub fn new(init: &Init, levels: usize, inputs: usize, outputs: usize) -> Self {
        let convs = |name, shape: ConvShape| {
            let fill = Fill::xavier(shape.fan_in(), shape.fan_out());
            (0..levels).map(|level| ConvNorm::new(&init.item(name, level), shape, fill)).collect()
        };
        Self {
            lateral_convs: convs("lateral_convs", ConvShape::new(inputs, outputs, 1)),
            fpn_convs: convs("fpn_convs", ConvShape::new(outputs, outputs, 3)),
        }
    }

    /// `prefix` is what stands before this module's paths, e.g. `neck.3.`; `weights` as in [`batch_norm`].
    ///
    /// # Shapes
    /// level l: `[B, C, T_l]` -> `[B, C', T_l]`
    pub fn forward(
        &self,
        levels: &[Tensor<3>],
        prefix: &str,
        weights: &[f32],
        pass: Pass<'_>,
        reducer: &Arc<dyn MomentsReducer>,
    ) -> (Vec<Tensor<3>>, Vec<PendingStatistics>) {
        let apply = |name: &str, convs: &[ConvNorm], levels: &[Tensor<3>]| {
            let inputs = convs
                .iter()
                .zip(levels)
                .enumerate()
                .map(|(level, (conv, x))| NormInput {
                    path: format!("{prefix}{name}.{level}.bn"),
                    layer: &conv.bn,
                    x: conv.conv.forward(x.clone()),
                })
                .collect();
            batch_norm(inputs, weights, pass, reducer)
        };
        let (mut laterals, mut statistics) = apply("lateral_convs", &self.lateral_convs, levels);
        for level in (1..laterals.len()).rev() {
            let finer = laterals[level - 1].clone();
            let length = finer.dims()[2];
            laterals[level - 1] = finer + nearest(laterals[level].clone(), length);
        }
        let (outputs, more) = apply("fpn_convs", &self.fpn_convs, &laterals);
        statistics.extend(more);
        (outputs, statistics)
    }
}

/// Nearest neighbour to an exact length: position t takes floor(t T / length).
///
/// # Shapes
/// `[B, C, T]` -> `[B, C, length]`
fn nearest(x: Tensor<3>, length: usize) -> Tensor<3> {
    let [_, _, coarse] = x.dims();
    let index: Vec<i32> = (0..length).map(|position| (position * coarse / length) as i32).collect();
    let index = Tensor::<1, Int>::from_data(TensorData::new(index, [length]), &x.device());
    x.select(2, index)
}
