//! Convolution over time as one matrix product for all levels of a pyramid.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::layers::{Fill, Init};

/// Convolution over `[B, C, T]` with an odd kernel, padded by half of it.
#[derive(Module, Debug)]
pub struct Conv1d {
    /// `[out, in, kernel]`.
    pub weight: Param<Tensor<3>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    stride: usize,
}

/// What a convolution is, apart from its values.
#[derive(Debug, Clone, Copy)]
pub struct ConvShape {
    /// Channels that come in.
    pub inputs: usize,
    /// Channels that go out.
    pub outputs: usize,
    /// Taps; odd.
    pub kernel: usize,
    /// Positions between two outputs.
    pub stride: usize,
}

impl ConvShape {
    /// Stride 1.
    pub fn new(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self { inputs, outputs, kernel, stride: 1 }
    }

    /// Weights that feed one output: PyTorch's `fan_in`.
    pub fn fan_in(&self) -> usize {
        self.inputs * self.kernel
    }

    /// Weights that one input feeds: PyTorch's `fan_out`.
    pub fn fan_out(&self) -> usize {
        self.outputs * self.kernel
    }
}

impl Conv1d {
    /// A convolution whose weight begins as `fill`, and whose bias, if it has one, begins as `bias`.
    pub fn new(init: &Init, shape: ConvShape, fill: Fill, bias: Option<Fill>) -> Self {
        Self {
            weight: init.param("weight", [shape.outputs, shape.inputs, shape.kernel], fill),
            bias: bias.map(|fill| init.param("bias", [shape.outputs], fill)),
            stride: shape.stride,
        }
    }

    /// PyTorch's default initialisation, with a bias.
    pub fn torch(init: &Init, shape: ConvShape) -> Self {
        let fill = Fill::torch(shape.fan_in());
        Self::new(init, shape, fill, Some(fill))
    }

    /// # Shapes
    /// `[B, in, T]` -> `[B, out, floor((T - 1) / stride) + 1]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let columns = self.unfold(x);
        self.apply(columns)
    }

    /// The same convolution of several sequences, each padded on its own, in one matrix product.
    ///
    /// # Shapes
    /// each `[B, in, T_l]` -> `[B, out, floor((T_l - 1) / stride) + 1]`
    pub fn forward_levels(&self, levels: &[Tensor<3>]) -> Vec<Tensor<3>> {
        if levels.is_empty() {
            return Vec::new();
        }
        let columns: Vec<_> = levels.iter().map(|x| self.unfold(x.clone())).collect();
        let lengths: Vec<_> = columns.iter().map(|x| x.dims()[2]).collect();
        let y = self.apply(Tensor::cat(columns, 2));
        let mut start = 0;
        lengths
            .into_iter()
            .map(|length| {
                start += length;
                y.clone().narrow(2, start - length, length)
            })
            .collect()
    }

    /// # Shapes
    /// `[B, in * kernel, T]` -> `[B, out, T]`
    fn apply(&self, columns: Tensor<3>) -> Tensor<3> {
        let [outputs, inputs, kernel] = self.weight.val().dims();
        let y = self.weight.val().reshape([1, outputs, inputs * kernel]).matmul(columns);
        match &self.bias {
            Some(bias) => y + bias.val().reshape([1, outputs, 1]),
            None => y,
        }
    }

    /// The inputs under each tap, taps fastest as in the weight. The padded sequence is read as rows of `stride`
    /// positions, so that tap j is column j mod stride of the rows from j / stride on.
    ///
    /// # Shapes
    /// `[B, C, T]` -> `[B, C * kernel, T_out]`
    fn unfold(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, channels, length] = x.dims();
        let kernel = self.weight.val().dims()[2];
        if kernel == 1 && self.stride == 1 {
            return x;
        }
        let (stride, before) = (self.stride, kernel / 2);
        let outputs = (length + 2 * before - kernel) / stride + 1;
        let rows = outputs + (kernel - 1) / stride;
        let after = (rows * stride).saturating_sub(before + length);
        let zeros =
            |length: usize| (length > 0).then(|| Tensor::<3>::zeros([batch, channels, length], &x.device()));
        let parts = [zeros(before), Some(x.clone()), zeros(after)];
        let padded = Tensor::cat(parts.into_iter().flatten().collect(), 2);
        let rows_of_stride = padded.narrow(2, 0, rows * stride).reshape([batch, channels, rows, stride]);
        let taps = (0..kernel)
            .map(|tap| {
                rows_of_stride
                    .clone()
                    .slice([
                        0..batch,
                        0..channels,
                        tap / stride..tap / stride + outputs,
                        tap % stride..tap % stride + 1,
                    ])
                    .reshape([batch, channels, 1, outputs])
            })
            .collect();
        Tensor::cat(taps, 2).reshape([batch, channels * kernel, outputs])
    }
}
