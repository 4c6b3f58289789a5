//! Backbone, neck, head and loss.

use serde::{Deserialize, Serialize};

use super::kinds::{BackboneKind, DetectorKind};

/// The detector.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Which detector family is trained.
    pub kind: DetectorKind,
    /// Clips to features.
    pub backbone: BackboneConfig,
    /// Features to a pyramid of consistent features.
    pub neck: NeckConfig,
    /// Pyramid to scores and offsets.
    pub head: HeadConfig,
    /// Scores and offsets to one number.
    pub loss: LossConfig,
}

/// Video Swin Transformer (spec 10).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackboneConfig {
    /// Which backbone family is trained.
    pub kind: BackboneKind,
    /// Which published size; `custom` takes `embed_dim`, `depths` and `num_heads` from here.
    pub variant: Variant,
    /// Width of the first stage (variant `custom`).
    pub embed_dim: usize,
    /// Blocks of each stage (variant `custom`).
    pub depths: Vec<usize>,
    /// Attention heads of each stage (variant `custom`).
    pub num_heads: Vec<usize>,
    /// Frames, rows and columns of a patch.
    pub patch_size: [usize; 3],
    /// Tokens of an attention window along time, height and width.
    pub window_size: [usize; 3],
    /// Hidden width of a block's MLP over its width.
    pub mlp_ratio: f64,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether a norm follows the patch embedding.
    pub patch_norm: bool,
    /// Rate of drop path in the last block; it rises linearly from 0 in the first.
    pub drop_path: f64,
    /// -1: everything trains; 0: the patch embedding is frozen; k: the first k stages too.
    pub frozen_stages: i64,
    /// How linear layers begin.
    pub linear_init: BackboneInit,
    /// A file of weights to begin with (safetensors, see `longtake import`); empty: none.
    pub weights: String,
    /// Whether the file may lack parameters of the backbone, which then begin at random.
    pub weights_may_lack: bool,
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self {
            kind: BackboneKind::VideoSwin,
            variant: Variant::Base,
            embed_dim: 24,
            depths: vec![1, 1, 2, 1],
            num_heads: vec![1, 2, 4, 8],
            patch_size: [2, 4, 4],
            window_size: [8, 7, 7],
            mlp_ratio: 4.0,
            qkv_bias: true,
            patch_norm: true,
            drop_path: 0.2,
            frozen_stages: 2,
            linear_init: BackboneInit::Published,
            weights: String::new(),
            weights_may_lack: false,
        }
    }
}

impl BackboneConfig {
    /// Width of the first stage, blocks a stage, heads a stage (spec 10, section 1).
    pub fn dimensions(&self) -> (usize, Vec<usize>, Vec<usize>) {
        match self.variant {
            Variant::Tiny => (96, vec![2, 2, 6, 2], vec![3, 6, 12, 24]),
            Variant::Small => (96, vec![2, 2, 18, 2], vec![3, 6, 12, 24]),
            Variant::Base => (128, vec![2, 2, 18, 2], vec![4, 8, 16, 32]),
            Variant::Custom => (self.embed_dim, self.depths.clone(), self.num_heads.clone()),
        }
    }

    /// Channels of the features that come out: the first stage's width, doubled after every stage but the last.
    pub fn channels(&self) -> usize {
        let (embed_dim, depths, _) = self.dimensions();
        embed_dim << depths.len().saturating_sub(1)
    }

    /// Frames a temporal position of the features: those of a patch.
    pub fn stride(&self) -> usize {
        self.patch_size[0].max(1)
    }
}

/// Shape of the features that a backbone gives of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureGeometry {
    /// Values of one temporal position.
    pub channels: usize,
    /// Frames between two temporal positions.
    pub stride: usize,
    /// Temporal positions of a full window.
    pub positions: usize,
}

impl FeatureGeometry {
    /// Temporal positions of this many frames; the last one may show fewer frames than `stride`.
    pub fn rows(&self, frames: usize) -> usize {
        frames.div_ceil(self.stride)
    }
}

/// Temporal positions of the backbone's features that become one position of the neck (spec 30, section 1).
pub const TEMPORAL_REDUCTION: usize = 4;

/// Published sizes of Video Swin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Swin-T: 27.85 M parameters.
    Tiny,
    /// Swin-S: 49.51 M parameters.
    Small,
    /// Swin-B: 87.64 M parameters.
    Base,
    /// The sizes in the configuration.
    Custom,
}

/// How linear layers of the backbone begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackboneInit {
    /// Truncated normal with standard deviation 0.02 (spec 10, section 5).
    Published,
    /// Truncated normal with standard deviation `fan_in`^-0.5: learns from scratch in far fewer steps.
    FanIn,
}

/// Temporal reduction, TCM, TDM and FPN (specs 30 and 40).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NeckConfig {
    /// Channels from the temporal reduction to the TDM.
    pub channels: usize,
    /// Layers of the temporal consistency module; 0 leaves it out.
    pub tcm_layers: usize,
    /// Attention heads of the TCM.
    pub tcm_heads: usize,
    /// Whether queries, keys and values of the TCM have a bias.
    pub tcm_qkv_bias: bool,
    /// Drop path of every TCM layer.
    pub tcm_drop_path: f64,
    /// Attention heads of the TDM.
    pub tdm_heads: usize,
    /// Dropout of the TDM.
    pub tdm_dropout: f64,
    /// Width of the attention band of each TDM stage, 0 for attention to everything; one more pyramid level than entries.
    pub tdm_kernels: Vec<usize>,
    /// Channels of the FPN.
    pub fpn_channels: usize,
}

impl Default for NeckConfig {
    fn default() -> Self {
        Self {
            channels: 512,
            tcm_layers: 3,
            tcm_heads: 16,
            tcm_qkv_bias: true,
            tcm_drop_path: 0.1,
            tdm_heads: 8,
            tdm_dropout: 0.1,
            tdm_kernels: vec![7, 7, 5, 5],
            fpn_channels: 256,
        }
    }
}

impl NeckConfig {
    /// Frames between two positions of each pyramid level, where the finest has one every `finest` frames.
    pub fn strides(&self, finest: usize) -> Vec<usize> {
        (0..=self.tdm_kernels.len()).map(|level| finest << level).collect()
    }
}

/// Retina head over anchors (spec 40, sections 4 and 5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadConfig {
    /// Convolutions of each tower.
    pub convs: usize,
    /// Anchors a position; their lengths divide an octave evenly.
    pub scales_per_octave: usize,
    /// Shortest anchor, in strides.
    pub octave_base_scale: f64,
}

impl Default for HeadConfig {
    fn default() -> Self {
        Self { convs: 4, scales_per_octave: 5, octave_base_scale: 2.0 }
    }
}

/// Assigner, focal loss and loss of the segments (spec 50).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// An anchor is positive from this tIoU on.
    pub positive_iou: f64,
    /// An anchor is background below this tIoU.
    pub negative_iou: f64,
    /// The best anchors of an action are positive from this tIoU on.
    pub min_positive_iou: f64,
    /// Weight of positives in the focal loss.
    pub focal_alpha: f64,
    /// Exponent of the focal loss.
    pub focal_gamma: f64,
    /// Loss of the segments.
    pub regression: RegressionLoss,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            positive_iou: 0.6,
            negative_iou: 0.4,
            min_positive_iou: 0.0,
            focal_alpha: 0.25,
            focal_gamma: 2.0,
            regression: RegressionLoss::Diou,
        }
    }
}

/// Loss of predicted segments (spec 50, section 5; TALLFormer `vedatad/criteria/losses/iou_loss.py`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegressionLoss {
    /// 1 - tIoU + squared distance of the centres over the squared length that holds both.
    Diou,
    /// 1 - tIoU + share of the length that holds both which neither covers.
    Giou,
    /// -ln tIoU.
    Iou,
}
