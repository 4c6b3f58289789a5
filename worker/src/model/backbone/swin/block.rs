//! One Video Swin block: attention within shifted windows, then an MLP, each added to its input (spec 10, section 4).

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use longtake_shared::config::BackboneInit;

use super::geometry::{Geometry, Layout, Window};
use crate::model::{
    layers::{Fill, Init, LayerNorm, Linear, drop_path, gelu},
    ops::{self, BiasIndex, Regions},
    pass::Pass,
};

/// Standard deviation of linear weights and bias tables (spec 10, section 5).
const INIT_STD: f64 = 0.02;

/// How the weight of a backbone's linear layer begins.
pub(super) fn linear_fill(how: BackboneInit, inputs: usize) -> Fill {
    match how {
        BackboneInit::Published => Fill::TruncatedNormal(INIT_STD),
        BackboneInit::FanIn => Fill::TruncatedNormal((inputs as f64).powf(-0.5)),
    }
}

/// A linear layer of the backbone with a bias of zeros.
fn linear(init: &Init, how: BackboneInit, inputs: usize, outputs: usize) -> Linear {
    Linear::new(init, inputs, outputs, linear_fill(how, inputs), Some(Fill::Constant(0.0)))
}

/// Attention among the tokens of a window, with a learned bias for each relative position.
#[derive(Module, Debug)]
pub struct WindowAttention {
    /// One row for each relative position of the full window, `[(2 wd - 1)(2 wh - 1)(2 ww - 1), heads]`.
    pub relative_position_bias_table: Param<Tensor<2>>,
    /// `[3C, C]`: queries, keys and values.
    pub qkv: Linear,
    /// `[C, C]`
    pub proj: Linear,
}

impl WindowAttention {
    /// Attention within windows as the settings of a block say.
    pub fn new(init: &Init, settings: &BlockSettings) -> Self {
        let BlockSettings { channels, heads, window, qkv_bias, how, .. } = *settings;
        let entries = window.iter().map(|length| 2 * length - 1).product();
        Self {
            relative_position_bias_table: init.param(
                "relative_position_bias_table",
                [entries, heads],
                Fill::TruncatedNormal(INIT_STD),
            ),
            qkv: Linear::new(
                &init.field("qkv"),
                channels,
                3 * channels,
                linear_fill(how, channels),
                qkv_bias.then_some(Fill::Constant(0.0)),
            ),
            proj: linear(&init.field("proj"), how, channels, channels),
        }
    }

    /// Attention with the bias entries of `index`; `regions` of a shifted block.
    ///
    /// # Shapes
    /// `[B * windows, tokens, C]` -> the same; windows of one image are neighbours
    pub fn forward(&self, x: Tensor<3>, index: &BiasIndex, regions: Option<&Regions>) -> Tensor<3> {
        let [windows, tokens, channels] = x.dims();
        let [_, heads] = self.relative_position_bias_table.val().dims();
        let qkv = self.qkv.forward(x).reshape([windows, tokens, 3, heads, channels / heads]);
        let bias = ops::relative_bias(self.relative_position_bias_table.val(), index);
        self.proj.forward(ops::window_attention(qkv, bias, regions))
    }
}

/// Two linear layers with a GELU between.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[hidden, C]`
    pub fc1: Linear,
    /// `[C, hidden]`
    pub fc2: Linear,
}

impl Mlp {
    fn new(init: &Init, channels: usize, hidden: usize, how: BackboneInit) -> Self {
        Self {
            fc1: linear(&init.field("fc1"), how, channels, hidden),
            fc2: linear(&init.field("fc2"), how, hidden, channels),
        }
    }

    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.fc2.forward(gelu(self.fc1.forward(x)))
    }
}

/// What a block is built from.
#[derive(Debug, Clone, Copy)]
pub struct BlockSettings {
    /// Width.
    pub channels: usize,
    /// Attention heads.
    pub heads: usize,
    /// Full attention window along time, height and width.
    pub window: [usize; 3],
    /// Whether the windows are shifted by half their size.
    pub shifted: bool,
    /// Hidden width of the MLP over the width.
    pub mlp_ratio: f64,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// How linear layers begin.
    pub how: BackboneInit,
    /// Rate of drop path.
    pub drop_path: f64,
    /// Number of the block over all stages: its place in the random numbers.
    pub number: usize,
}

/// One block of a stage.
#[derive(Module, Debug)]
pub struct Block {
    /// Before the attention.
    pub norm1: LayerNorm,
    /// Attention within windows.
    pub attn: WindowAttention,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// The MLP.
    pub mlp: Mlp,
    #[module(skip)]
    window: Window,
    #[module(skip)]
    drop_path: f64,
    #[module(skip)]
    number: u64,
}

impl Block {
    /// A block as `settings` say.
    pub fn new(init: &Init, settings: &BlockSettings) -> Self {
        let BlockSettings { channels, window, how, .. } = *settings;
        let hidden = (channels as f64 * settings.mlp_ratio) as usize;
        let shift = if settings.shifted { window.map(|length| length / 2) } else { [0; 3] };
        Self {
            norm1: LayerNorm::new(&init.field("norm1"), channels),
            attn: WindowAttention::new(&init.field("attn"), settings),
            norm2: LayerNorm::new(&init.field("norm2"), channels),
            mlp: Mlp::new(&init.field("mlp"), channels, hidden, how),
            window: Window { size: window, shift },
            drop_path: settings.drop_path,
            number: settings.number as u64,
        }
    }

    /// # Shapes
    /// `[B, D, H, W, C]` -> the same
    pub fn forward(&self, x: Tensor<5>, pass: Pass, geometry: &Geometry) -> Tensor<5> {
        let shape @ [batch, depth, height, width, channels] = x.dims();
        let layout = geometry.layout([depth, height, width], self.window);
        let x = x.reshape([batch, depth * height * width, channels]);
        let factors = |half| pass.drop_path(self.drop_path, 2 * self.number + half);
        let x = x.clone() + drop_path(self.attention(x, &layout), factors(0));
        let x = x.clone() + drop_path(self.mlp.forward(self.norm2.forward(x)), factors(1));
        x.reshape(shape)
    }

    /// The attention half without its residual: `[B, D * H * W, C]` -> the same.
    fn attention(&self, x: Tensor<3>, layout: &Layout) -> Tensor<3> {
        let [batch, _, channels] = x.dims();
        // Padding comes after the norm: padded tokens are exact zeros, and take part.
        let x = ops::gather_rows(self.norm1.forward(x), &layout.rows);
        let x = x.reshape([batch * layout.windows, layout.tokens, channels]);
        let x = self.attn.forward(x, &layout.bias, layout.regions.as_ref());
        ops::scatter_rows(x.reshape([batch, layout.windows * layout.tokens, channels]), &layout.rows)
    }
}
