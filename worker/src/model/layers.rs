//! Layers with PyTorch's names and layouts, so that a checkpoint's keys are the published ones, and how they begin.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use longtake_shared::random::Key;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::ops;

/// What parameters begin as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Every value the same.
    Constant(f32),
    /// Between minus this and this, each value equally likely.
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Normal with this standard deviation, drawn again outside of ±2 (not ±2 sigma; spec 00, section 3).
    TruncatedNormal(f64),
}

impl Fill {
    /// PyTorch's default for linear layers and convolutions: uniform in ± 1 / sqrt(`fan_in`).
    pub fn torch(fan_in: usize) -> Self {
        Self::Uniform(1.0 / (fan_in as f64).sqrt())
    }

    /// Xavier's uniform: ± sqrt(6 / (`fan_in` + `fan_out`)).
    pub fn xavier(fan_in: usize, fan_out: usize) -> Self {
        Self::Uniform((6.0 / (fan_in + fan_out) as f64).sqrt())
    }

    fn values(self, count: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
        (0..count)
            .map(|_| match self {
                Self::Constant(value) => value,
                Self::Uniform(bound) => ((unit(rng) * 2.0 - 1.0) * bound) as f32,
                Self::Normal(std) => (normal(rng) * std) as f32,
                Self::TruncatedNormal(std) => loop {
                    let value = normal(rng) * std;
                    if value.abs() <= 2.0 {
                        break value as f32;
                    }
                },
            })
            .collect()
    }
}

/// Uniform in [0, 1).
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Standard normal, by Box and Muller.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (radius, angle) = (1.0 - unit(rng), unit(rng));
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// Where parameters come into being: a device, and a key that follows the module's path, so that a parameter's first
/// value depends on its name and not on the order of construction.
#[derive(Debug, Clone)]
pub struct Init {
    /// Where the parameters live.
    pub device: Device,
    key: Key,
}

impl Init {
    /// The root of a model.
    pub fn new(device: &Device, key: Key) -> Self {
        Self { device: device.clone(), key }
    }

    /// Below a field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        self.item(name, 0)
    }

    /// Below entry `index` of a field that is a list.
    #[must_use]
    pub fn item(&self, name: &str, index: usize) -> Self {
        Self { device: self.device.clone(), key: self.key.child(name, index as u64) }
    }

    /// A parameter of this name and shape.
    pub fn param<const D: usize>(&self, name: &str, shape: [usize; D], fill: Fill) -> Param<Tensor<D>> {
        let values = fill.values(shape.iter().product(), &mut self.key.child(name, 0).rng());
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }
}

/// `y = x W^T + b`, with PyTorch's `[out, in]` weight.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// A layer whose weight begins as `fill`, and whose bias, if it has one, begins as `bias`.
    pub fn new(init: &Init, inputs: usize, outputs: usize, fill: Fill, bias: Option<Fill>) -> Self {
        Self {
            weight: init.param("weight", [outputs, inputs], fill),
            bias: bias.map(|fill| init.param("bias", [outputs], fill)),
        }
    }

    /// PyTorch's default initialisation, with a bias.
    pub fn torch(init: &Init, inputs: usize, outputs: usize) -> Self {
        Self::new(init, inputs, outputs, Fill::torch(inputs), Some(Fill::torch(inputs)))
    }

    /// # Shapes
    /// `[..., in]` -> `[..., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut shape: [usize; D] = x.dims();
        let [outputs, inputs] = self.weight.val().dims();
        let rows = shape.iter().product::<usize>() / inputs;
        shape[D - 1] = outputs;
        let bias = self.bias.as_ref().map(Param::val);
        let y = ops::linear(x.reshape([rows, inputs]), self.weight.val(), bias);
        y.reshape(shape)
    }
}

/// Layer normalisation over the last axis, epsilon 1e-5.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[C]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[C]`.
    pub bias: Param<Tensor<1>>,
}

/// PyTorch's default epsilon of normalisation layers.
pub const NORM_EPSILON: f64 = 1e-5;

impl LayerNorm {
    /// Scale 1, shift 0.
    pub fn new(init: &Init, channels: usize) -> Self {
        Self {
            weight: init.param("weight", [channels], Fill::Constant(1.0)),
            bias: init.param("bias", [channels], Fill::Constant(0.0)),
        }
    }

    /// # Shapes
    /// `[..., C]` -> `[..., C]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let shape: [usize; D] = x.dims();
        let channels = shape[D - 1];
        let x = x.reshape([shape.iter().product::<usize>() / channels, channels]);
        ops::layer_norm(x, self.weight.val(), self.bias.val(), NORM_EPSILON).reshape(shape)
    }
}

/// GELU in its exact form, with the error function.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    ops::gelu(x)
}

/// Multiplies each entry of the first axis by its drop-path factor ([`crate::model::pass::Pass::drop_path`]).
///
/// # Shapes
/// `[N, ...]` -> `[N, ...]`
pub fn drop_path<const D: usize>(x: Tensor<D>, factors: Option<Vec<f32>>) -> Tensor<D> {
    let Some(factors) = factors else { return x };
    let shape: [usize; D] = x.dims();
    let entries = factors.len();
    let factors = Tensor::<2>::from_data(TensorData::new(factors, [entries, 1]), &x.device());
    // As a matrix: burn's CPU backend broadcasts two axes fast, and more of them slowly.
    (x.reshape([entries, shape.iter().product::<usize>() / entries]) * factors).reshape(shape)
}
