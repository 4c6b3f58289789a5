//! The Video Swin Transformer, with the published parameter names (spec 10).
//!
//! Takes: clips `[N, 3, L, H, W]` f32, normalised. Gives: features `[N, C, L/2, H/32, W/32]`. Next: memory or heads.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use longtake_shared::config::{BackboneConfig, BackboneInit};

use super::{
    block::{Block, BlockSettings, linear_fill},
    geometry::Geometry,
};
use crate::model::{
    layers::{Fill, Init, LayerNorm, Linear},
    ops,
    pass::Pass,
};

/// Red, green and blue.
const COLOURS: usize = 3;

/// A convolution whose kernel equals its stride, as a parameter pair.
#[derive(Module, Debug)]
pub struct PatchProjection {
    /// `[C, 3, frames, rows, columns]`
    pub weight: Param<Tensor<5>>,
    /// `[C]`
    pub bias: Param<Tensor<1>>,
}

/// Clips become one token a patch.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// Pixels of a patch to channels.
    pub proj: PatchProjection,
    /// Over the channels.
    pub norm: Option<LayerNorm>,
}

impl PatchEmbed {
    /// Patches of this many frames, rows and columns, with PyTorch's default initialisation of a convolution, and with a
    /// norm after it or without.
    pub fn new(init: &Init, channels: usize, patch: [usize; 3], norm: bool) -> Self {
        let proj = init.field("proj");
        let fill = Fill::torch(COLOURS * patch.iter().product::<usize>());
        Self {
            proj: PatchProjection {
                weight: proj.param("weight", [channels, COLOURS, patch[0], patch[1], patch[2]], fill),
                bias: proj.param("bias", [channels], fill),
            },
            norm: norm.then(|| LayerNorm::new(&init.field("norm"), channels)),
        }
    }

    /// Zero-pads each axis at its end to whole patches.
    ///
    /// # Shapes
    /// `[N, 3, L, H, W]` -> `[N, ceil(L / 2), ceil(H / 4), ceil(W / 4), C]` for the published patch
    pub fn forward(&self, clips: Tensor<5>, geometry: &Geometry) -> Tensor<5> {
        let weight = self.proj.weight.val();
        let [channels, _, depth, height, width] = weight.dims();
        let patch = [depth, height, width];
        let [batch, _, frames, rows, columns] = clips.dims();
        let clips = match columns.next_multiple_of(width) - columns {
            0 => clips,
            missing => {
                let zeros = Tensor::zeros([batch, COLOURS, frames, rows, missing], &clips.device());
                Tensor::cat(vec![clips, zeros], 4)
            }
        };
        let columns = columns.next_multiple_of(width);
        let map = geometry.patches([frames, rows, columns], patch);
        let pixels = clips.reshape([batch, COLOURS * frames * rows * columns / width, width]);
        let pixels = ops::gather_rows(pixels, &map);
        let tokens = [frames.div_ceil(depth), rows.div_ceil(height), columns / width];
        let values = COLOURS * patch.iter().product::<usize>();
        let pixels = pixels.reshape([batch * tokens.iter().product::<usize>(), values]);
        let x = ops::linear(pixels, weight.reshape([channels, values]), Some(self.proj.bias.val()));
        let x = match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        x.reshape([batch, tokens[0], tokens[1], tokens[2], channels])
    }
}

/// Between stages: 2 x 2 neighbours in space become one token of twice the width.
#[derive(Module, Debug)]
pub struct PatchMerging {
    /// `[2C, 4C]`, without a bias.
    pub reduction: Linear,
    /// Over the 4C values.
    pub norm: LayerNorm,
}

impl PatchMerging {
    /// For tokens of this width.
    pub fn new(init: &Init, channels: usize, how: BackboneInit) -> Self {
        let fill = linear_fill(how, 4 * channels);
        Self {
            reduction: Linear::new(&init.field("reduction"), 4 * channels, 2 * channels, fill, None),
            norm: LayerNorm::new(&init.field("norm"), 4 * channels),
        }
    }

    /// # Shapes
    /// `[B, D, H, W, C]` -> `[B, D, ceil(H / 2), ceil(W / 2), 2C]`
    pub fn forward(&self, x: Tensor<5>, geometry: &Geometry) -> Tensor<5> {
        let [batch, depth, height, width, channels] = x.dims();
        let map = geometry.merging([depth, height, width]);
        let x = ops::gather_rows(x.reshape([batch, depth * height * width, channels]), &map);
        let (height, width) = (height.div_ceil(2), width.div_ceil(2));
        let x = x.reshape([batch * depth * height * width, 4 * channels]);
        let x = self.reduction.forward(self.norm.forward(x));
        x.reshape([batch, depth, height, width, 2 * channels])
    }
}

/// Blocks of one width, and the merging after them.
#[derive(Module, Debug)]
pub struct Stage {
    /// Every second one shifted.
    pub blocks: Vec<Block>,
    /// Not after the last stage.
    pub downsample: Option<PatchMerging>,
}

impl Stage {
    fn forward(&self, x: Tensor<5>, pass: Pass, geometry: &Geometry) -> Tensor<5> {
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x, pass, geometry));
        match &self.downsample {
            Some(downsample) => downsample.forward(x, geometry),
            None => x,
        }
    }
}

/// The backbone.
#[derive(Module, Debug)]
pub struct VideoSwin {
    /// Clips to tokens.
    pub patch_embed: PatchEmbed,
    /// Stages; each but the last ends with a merging.
    pub layers: Vec<Stage>,
    /// Over the channels of the last stage.
    pub norm: LayerNorm,
    #[module(skip)]
    frozen_stages: i64,
    #[module(skip)]
    geometry: Geometry,
}

impl VideoSwin {
    /// A backbone of the configured size; `weights` of the configuration are for the caller to load.
    pub fn new(config: &BackboneConfig, init: &Init) -> Self {
        let (embed_dim, depths, heads) = config.dimensions();
        let blocks_in_all: usize = depths.iter().sum();
        let mut number = 0;
        let layers = depths
            .iter()
            .zip(&heads)
            .enumerate()
            .map(|(stage, (&depth, &heads))| {
                let init = init.item("layers", stage);
                let channels = embed_dim << stage;
                let blocks = (0..depth)
                    .map(|block| {
                        let settings = BlockSettings {
                            channels,
                            heads,
                            window: config.window_size,
                            shifted: block % 2 == 1,
                            mlp_ratio: config.mlp_ratio,
                            qkv_bias: config.qkv_bias,
                            how: config.linear_init,
                            drop_path: config.drop_path * number as f64 / (blocks_in_all.max(2) - 1) as f64,
                            number,
                        };
                        number += 1;
                        Block::new(&init.item("blocks", block), &settings)
                    })
                    .collect();
                let downsample = (stage + 1 < depths.len())
                    .then(|| PatchMerging::new(&init.field("downsample"), channels, config.linear_init));
                Stage { blocks, downsample }
            })
            .collect();
        let patch_embed = init.field("patch_embed");
        Self {
            patch_embed: PatchEmbed::new(&patch_embed, embed_dim, config.patch_size, config.patch_norm),
            layers,
            norm: LayerNorm::new(&init.field("norm"), config.channels()),
            frozen_stages: config.frozen_stages,
            geometry: Geometry::default(),
        }
    }

    /// # Shapes
    /// `[N, 3, L, H, W]` -> `[N, C, ceil(L / 2), h, w]`, where h and w are a 32nd of the frame, rounded up at each stage
    pub fn forward(&self, clips: Tensor<5>, pass: Pass) -> Tensor<5> {
        self.tokens(clips, pass).permute([0, 4, 1, 2, 3])
    }

    /// The mean over space of what [`Self::forward`] gives.
    ///
    /// # Shapes
    /// `[N, 3, L, H, W]` -> `[N, C, ceil(L / 2)]`
    pub fn features(&self, clips: Tensor<5>, pass: Pass) -> Tensor<3> {
        let tokens = self.tokens(clips, pass);
        let [batch, depth, height, width, channels] = tokens.dims();
        let tokens = tokens.reshape([batch * depth, height * width, channels]);
        tokens.mean_dim(1).reshape([batch, depth, channels]).swap_dims(1, 2)
    }

    /// Channels of the features.
    pub fn channels(&self) -> usize {
        self.norm.weight.val().dims()[0]
    }

    /// Channels last: `[N, D, h, w, C]`.
    fn tokens(&self, clips: Tensor<5>, pass: Pass) -> Tensor<5> {
        let mut x = self.patch_embed.forward(clips, &self.geometry);
        for (stage, layer) in self.layers.iter().enumerate() {
            let frozen = (stage as i64) < self.frozen_stages;
            x = layer.forward(x, if frozen { Pass::Evaluate } else { pass }, &self.geometry);
        }
        self.norm.forward(x)
    }
}

/// Prefixes of the parameters below the backbone that do not train: the patch embedding from `frozen_stages` 0 on, and the first
/// `frozen_stages` stages with their merging (spec 10, section 6).
pub fn frozen_prefixes(frozen_stages: i64) -> Vec<String> {
    let embedding = (frozen_stages >= 0).then(|| "patch_embed.".to_owned());
    embedding.into_iter().chain((0..frozen_stages).map(|stage| format!("layers.{stage}."))).collect()
}
