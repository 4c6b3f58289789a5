//! Temporal downsampling module: banded attention on ever shorter sequences.
//!
//! Takes: `[B, C, T]`. Gives: one map `[B, C, T_l]` a level, each half as long as the one before, rounding up.
//! Next: the FPN.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData, activation};

use super::{attend, dropout};
use crate::model::layers::{Fill, Init, LayerNorm, Linear};
use crate::model::pass::Pass;

/// Added to the scores outside of the band (spec 40, section 2).
const MASKED: f32 = -1e9;

/// Dropout sites of one stage: attention weights, attention's residual, hidden layer, hidden layer's residual.
const SITES: u64 = 4;

/// Sizes of a TDM.
#[derive(Debug, Clone)]
pub struct TdmShape {
    /// Width of a token.
    pub channels: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of the feed-forward layers.
    pub hidden: usize,
    /// Rate of every dropout.
    pub dropout: f64,
    /// Width of the attention band of each stage; 0: none, all positions attend to all.
    pub kernels: Vec<usize>,
}

/// Position code, then stages that join pairs of positions and attend within a band (spec 40, section 2; TALLFormer
/// `vedatad/models/necks/tdm.py`). The published buffer `pe.pe` is computed, so it is no parameter here.
#[derive(Module, Debug)]
pub struct Tdm {
    /// Stage i joins pairs: a linear layer without bias `[C, 2 C]`, then a layer norm.
    pub reductions: Vec<(Linear, LayerNorm)>,
    /// Stage i attends.
    pub trans_layers: Vec<TransformerLayer>,
    #[module(skip)]
    dropout: f64,
    #[module(skip)]
    half_bands: Vec<Option<usize>>,
}

impl Tdm {
    /// A stage for each kernel.
    pub fn new(init: &Init, shape: &TdmShape) -> Self {
        let reduction = |index| {
            let init = init.item("reductions", index);
            let fill = Fill::torch(2 * shape.channels);
            (
                Linear::new(&init.field("0"), 2 * shape.channels, shape.channels, fill, None),
                LayerNorm::new(&init.field("1"), shape.channels),
            )
        };
        Self {
            reductions: (0..shape.kernels.len()).map(reduction).collect(),
            trans_layers: (0..shape.kernels.len())
                .map(|index| TransformerLayer::new(&init.item("trans_layers", index), shape))
                .collect(),
            dropout: shape.dropout,
            half_bands: shape.kernels.iter().map(|kernel| (*kernel > 0).then_some(kernel / 2)).collect(),
        }
    }

    /// Dropout draws from site 0 for the position code, and from sites 1 + 4 i to 4 + 4 i for stage i.
    ///
    /// # Shapes
    /// `[B, C, T]` -> level l: `[B, C, T_l]`, T_0 = T
    pub fn forward(&self, x: Tensor<3>, pass: Pass<'_>) -> Vec<Tensor<3>> {
        let x = x.swap_dims(1, 2);
        let [_, length, channels] = x.dims();
        let code = Tensor::from_data(
            TensorData::new(position_code(length, channels), [1, length, channels]),
            &x.device(),
        );
        let mut x = dropout(x + code, pass, self.dropout, 0);
        let mut levels = vec![x.clone().swap_dims(1, 2)];
        let stages = self.reductions.iter().zip(&self.trans_layers).zip(&self.half_bands);
        for (stage, (((linear, norm), layer), half_band)) in (0u64..).zip(stages) {
            x = norm.forward(linear.forward(join_pairs(x)));
            let mask = half_band.map(|half| band_mask(x.dims()[1], half, &x));
            x = layer.forward(x, mask, pass, 1 + SITES * stage);
            levels.push(x.clone().swap_dims(1, 2));
        }
        levels
    }
}

/// Consecutive positions side by side; an odd sequence gets a position of zeros at its end.
///
/// # Shapes
/// `[B, T, C]` -> `[B, ceil(T / 2), 2 C]`
fn join_pairs(x: Tensor<3>) -> Tensor<3> {
    let [batch, length, channels] = x.dims();
    let x = if length % 2 == 1 {
        let zeros = Tensor::zeros([batch, 1, channels], &x.device());
        Tensor::cat(vec![x, zeros], 1)
    } else {
        x
    };
    x.reshape([batch, length.div_ceil(2), 2 * channels])
}

/// Sines and cosines over the square root of the width: even channels sin(t w), odd ones cos(t w), with w = 10000^(-c/C)
/// for the even channel c (spec 00, section 3; spec 40, section 2).
pub(super) fn position_code(length: usize, channels: usize) -> Vec<f32> {
    let scale = (channels as f32).sqrt().recip();
    (0..length)
        .flat_map(|position| {
            (0..channels).map(move |channel| {
                let exponent = (channel / 2 * 2) as f32 * (-(10000f32.ln()) / channels as f32);
                let angle = position as f32 * exponent.exp();
                scale * if channel % 2 == 0 { angle.sin() } else { angle.cos() }
            })
        })
        .collect()
}

/// 0 where query and key are at most `half` apart, else [`MASKED`].
///
/// # Shapes
/// `[1, 1, T, T]`
fn band_mask(length: usize, half: usize, like: &Tensor<3>) -> Tensor<4> {
    let mask: Vec<f32> = (0..length)
        .flat_map(|query| {
            (0..length).map(move |key: usize| if query.abs_diff(key) <= half { 0.0 } else { MASKED })
        })
        .collect();
    Tensor::from_data(TensorData::new(mask, [1, 1, length, length]), &like.device())
}

/// One post-norm transformer layer with a ReLU (PyTorch's `TransformerEncoderLayer`).
#[derive(Module, Debug)]
pub struct TransformerLayer {
    /// Multi-head attention.
    pub self_attn: MultiheadAttention,
    /// To the hidden width.
    pub linear1: Linear,
    /// From the hidden width.
    pub linear2: Linear,
    /// After the attention.
    pub norm1: LayerNorm,
    /// After the hidden layer.
    pub norm2: LayerNorm,
    #[module(skip)]
    dropout: f64,
}

/// PyTorch's packed attention parameters.
#[derive(Module, Debug)]
pub struct MultiheadAttention {
    /// Queries, keys and values, `[3 C, C]`.
    pub in_proj_weight: Param<Tensor<2>>,
    /// `[3 C]`.
    pub in_proj_bias: Param<Tensor<1>>,
    /// What comes out.
    pub out_proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl TransformerLayer {
    /// In-projection Xavier on its packed shape, attention's biases 0, other layers PyTorch's default.
    pub fn new(init: &Init, shape: &TdmShape) -> Self {
        let channels = shape.channels;
        let attention = init.field("self_attn");
        Self {
            self_attn: MultiheadAttention {
                in_proj_weight: attention.param(
                    "in_proj_weight",
                    [3 * channels, channels],
                    Fill::xavier(channels, 3 * channels),
                ),
                in_proj_bias: attention.param("in_proj_bias", [3 * channels], Fill::Constant(0.0)),
                out_proj: Linear::new(
                    &attention.field("out_proj"),
                    channels,
                    channels,
                    Fill::torch(channels),
                    Some(Fill::Constant(0.0)),
                ),
                heads: shape.heads,
            },
            linear1: Linear::torch(&init.field("linear1"), channels, shape.hidden),
            linear2: Linear::torch(&init.field("linear2"), shape.hidden, channels),
            norm1: LayerNorm::new(&init.field("norm1"), channels),
            norm2: LayerNorm::new(&init.field("norm2"), channels),
            dropout: shape.dropout,
        }
    }

    /// `mask` is added to the scores, `[1, 1, T, T]`; dropout draws from `site` to `site + 3`.
    ///
    /// # Shapes
    /// `[B, T, C]` -> `[B, T, C]`
    pub fn forward(&self, x: Tensor<3>, mask: Option<Tensor<4>>, pass: Pass<'_>, site: u64) -> Tensor<3> {
        let drop = |x, offset| dropout::<3>(x, pass, self.dropout, site + offset);
        let attended =
            self.self_attn.forward(x.clone(), mask, |weights| dropout(weights, pass, self.dropout, site));
        let x = self.norm1.forward(x + drop(attended, 1));
        let hidden = drop(activation::relu(self.linear1.forward(x.clone())), 2);
        self.norm2.forward(x + drop(self.linear2.forward(hidden), 3))
    }
}

impl MultiheadAttention {
    fn forward(
        &self,
        x: Tensor<3>,
        mask: Option<Tensor<4>>,
        weights: impl FnOnce(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<3> {
        let [batch, length, channels] = x.dims();
        let packed = x.reshape([batch * length, channels]).matmul(self.in_proj_weight.val().transpose())
            + self.in_proj_bias.val().unsqueeze::<2>();
        let packed = packed.reshape([batch, length, 3 * channels]);
        self.out_proj.forward(attend(&packed, self.heads, mask, weights))
    }
}
