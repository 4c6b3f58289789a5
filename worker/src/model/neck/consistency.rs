//! Temporal consistency module: attention over the window makes remembered features agree with fresh ones.
//!
//! Takes: `[B, C, T]`. Gives: the same shape. Next: the TDM.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};

use super::attend;
use crate::model::layers::{Fill, Init, LayerNorm, Linear, drop_path, gelu};
use crate::model::pass::Pass;

/// A window that is longer than the module's position table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the window has {length} temporal positions, but the position table of the TCM is made for at most {longest}"
)]
pub struct TooLong {
    /// Positions of the window.
    pub length: usize,
    /// Positions that the table is made for.
    pub longest: usize,
}

impl longtake_shared::hint::Hint for TooLong {
    fn hint(&self) -> Option<String> {
        Some(
            "use the window length that the model was made with, or train with the longer one from the start"
                .into(),
        )
    }
}

/// Sizes of a TCM.
#[derive(Debug, Clone, Copy)]
pub struct TcmShape {
    /// Width of a token.
    pub channels: usize,
    /// Attention heads.
    pub heads: usize,
    /// Longest sequence.
    pub max_length: usize,
    /// Layers.
    pub layers: usize,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Drop path of every layer: constant, no ramp (spec 30, section 2).
    pub drop_path: f64,
}

/// The layers of the TCM (spec 30, section 2; TALLFormer `vedatad/models/modules/swin_1d.py`).
#[derive(Module, Debug)]
pub struct Tcm {
    /// As the published keys have it: `encoder.layers.{l}`.
    pub encoder: Encoder,
    #[module(skip)]
    max_length: usize,
}

/// The list of layers.
#[derive(Module, Debug)]
pub struct Encoder {
    /// In order.
    pub layers: Vec<EncoderLayer>,
}

impl Tcm {
    /// Layers that all begin with the same values, as deep copies of one do.
    pub fn new(init: &Init, shape: TcmShape) -> Self {
        let init = init.field("encoder").field("layers");
        let layers = (0..shape.layers).map(|_| EncoderLayer::new(&init, shape)).collect();
        Self { encoder: Encoder { layers }, max_length: shape.max_length }
    }

    /// Whether a window of this many positions can be processed.
    pub fn check_length(&self, length: usize) -> Result<(), TooLong> {
        if length > self.max_length && !self.encoder.layers.is_empty() {
            return Err(TooLong { length, longest: self.max_length });
        }
        Ok(())
    }

    /// Drop path draws from sites 2 l and 2 l + 1 for layer l.
    ///
    /// # Shapes
    /// `[B, C, T]` -> `[B, C, T]`
    ///
    /// # Errors
    /// When T exceeds the length that the position table is made for.
    pub fn forward(&self, x: Tensor<3>, pass: Pass<'_>) -> Result<Tensor<3>, TooLong> {
        self.check_length(x.dims()[2])?;
        let mut tokens = x.swap_dims(1, 2);
        for (index, layer) in (0u64..).zip(&self.encoder.layers) {
            tokens = layer.forward(tokens, pass, 2 * index);
        }
        Ok(tokens.swap_dims(1, 2))
    }
}

/// One pre-norm layer: attention, then an MLP, each beside a residual.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    /// Before the attention.
    pub norm1: LayerNorm,
    /// Over the whole window.
    pub attn: RelativeAttention,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// Token by token.
    pub mlp: Mlp,
    #[module(skip)]
    drop_path: f64,
}

impl EncoderLayer {
    fn new(init: &Init, shape: TcmShape) -> Self {
        Self {
            norm1: LayerNorm::new(&init.field("norm1"), shape.channels),
            attn: RelativeAttention::new(&init.field("attn"), shape),
            norm2: LayerNorm::new(&init.field("norm2"), shape.channels),
            mlp: Mlp::new(&init.field("mlp"), shape.channels),
            drop_path: shape.drop_path,
        }
    }

    /// # Shapes
    /// `[B, T, C]` -> `[B, T, C]`
    fn forward(&self, x: Tensor<3>, pass: Pass<'_>, site: u64) -> Tensor<3> {
        let attended = self.attn.forward(self.norm1.forward(x.clone()), None);
        let x = x + drop_path(attended, pass.drop_path(self.drop_path, site));
        let mixed = self.mlp.forward(self.norm2.forward(x.clone()));
        x + drop_path(mixed, pass.drop_path(self.drop_path, site + 1))
    }
}

/// Two linear layers with a GELU between them; the hidden layer is four times as wide.
#[derive(Module, Debug)]
pub struct Mlp {
    /// Wider.
    pub fc1: Linear,
    /// Narrower.
    pub fc2: Linear,
}

impl Mlp {
    /// Hidden width over width (spec 30, section 2).
    const RATIO: usize = 4;

    fn new(init: &Init, channels: usize) -> Self {
        Self {
            fc1: Linear::torch(&init.field("fc1"), channels, Self::RATIO * channels),
            fc2: Linear::torch(&init.field("fc2"), Self::RATIO * channels, channels),
        }
    }

    /// # Shapes
    /// `[B, T, C]` -> `[B, T, C]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc2.forward(gelu(self.fc1.forward(x)))
    }
}

/// Attention over time with a learned bias for each head and relative position.
#[derive(Module, Debug)]
pub struct RelativeAttention {
    /// Row `i - j + L - 1` is the bias of key j for query i, `[2 L - 1, heads]`.
    pub relative_position_bias_table: Param<Tensor<2>>,
    /// Queries, keys and values.
    pub qkv: Linear,
    /// What comes out.
    pub proj: Linear,
}

impl RelativeAttention {
    /// A table for the longest sequence, truncated normal with standard deviation 0.02.
    pub fn new(init: &Init, shape: TcmShape) -> Self {
        let TcmShape { channels, heads, max_length, qkv_bias, .. } = shape;
        let fill = Fill::torch(channels);
        Self {
            relative_position_bias_table: init.param(
                "relative_position_bias_table",
                [2 * max_length - 1, heads],
                Fill::TruncatedNormal(0.02),
            ),
            qkv: Linear::new(&init.field("qkv"), channels, 3 * channels, fill, qkv_bias.then_some(fill)),
            proj: Linear::torch(&init.field("proj"), channels, channels),
        }
    }

    /// `mask` is added to the scores of all heads, `[T, T]`.
    ///
    /// # Shapes
    /// `[B, T, C]` -> `[B, T, C]`
    pub fn forward(&self, x: Tensor<3>, mask: Option<Tensor<2>>) -> Tensor<3> {
        let [_, length, _] = x.dims();
        let heads = self.relative_position_bias_table.val().dims()[1];
        let bias = self.bias(length);
        let added = match mask {
            Some(mask) => bias + mask.reshape([1, 1, length, length]),
            None => bias,
        };
        self.proj.forward(attend(&self.qkv.forward(x), heads, Some(added), |weights| weights))
    }

    /// # Shapes
    /// `[1, heads, T, T]`
    fn bias(&self, length: usize) -> Tensor<4> {
        let table = self.relative_position_bias_table.val();
        let [rows, heads] = table.dims();
        let middle = rows / 2;
        let index: Vec<i32> =
            (0..length).flat_map(|query| (0..length).map(move |key| (query + middle - key) as i32)).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [length * length]), &table.device());
        table.select(0, index).swap_dims(0, 1).reshape([1, heads, length, length])
    }
}
