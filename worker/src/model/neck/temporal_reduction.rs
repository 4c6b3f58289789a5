//! Temporal reduction: backbone features at a quarter of their rate.
//!
//! Takes: `[B, C, T]`. Gives: `[B, C', ceil(T / 4)]`. Next: the TCM.

use burn::module::Module;
use burn::tensor::{Tensor, activation};

use crate::model::conv1d::{Conv1d, ConvShape};
use crate::model::layers::Init;

/// Two convolutions with kernel 3 and stride 2, a ReLU between them, nothing after (spec 30, section 1;
/// TALLFormer `vedatad/models/necks/srm_vswin.py`).
#[derive(Module, Debug)]
pub struct TemporalReduction {
    /// Backbone channels to neck channels.
    pub conv1: Conv1d,
    /// Neck channels to neck channels.
    pub conv2: Conv1d,
}

impl TemporalReduction {
    /// PyTorch's default initialisation, as the reference's THUMOS model.
    pub fn new(init: &Init, inputs: usize, outputs: usize) -> Self {
        let shape = |inputs| ConvShape { inputs, outputs, kernel: 3, stride: 2 };
        Self {
            conv1: Conv1d::torch(&init.field("conv1"), shape(inputs)),
            conv2: Conv1d::torch(&init.field("conv2"), shape(outputs)),
        }
    }

    /// Positions that are left of `length`: each convolution halves, rounding up.
    pub fn reduced_length(length: usize) -> usize {
        length.div_ceil(2).div_ceil(2)
    }

    /// # Shapes
    /// `[B, C, T]` -> `[B, C', ceil(T / 4)]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.conv2.forward(activation::relu(self.conv1.forward(x)))
    }
}
