//! CLIPS -> FEATURES: the one seam that every backbone implements.
//!
//! Takes: clips, each `[3, L, H, W]` f32, normalised. Gives: features of each, one position every `stride` frames. Next: [`crate::model::memory`].

/// Chunks of clips through a backbone: the one encoder of training, memory, inference and golden cases.
pub mod encoder;

/// Video Swin Transformer.
pub mod swin;

use burn::module::Module;
use burn::tensor::Tensor;
use longtake_shared::config::{BackboneConfig, BackboneKind};

use self::swin::VideoSwin;
pub use self::swin::import;
use super::layers::Init;
use super::pass::Pass;

/// A backbone of the configured kind.
#[derive(Module, Debug)]
pub enum Backbone {
    /// Video Swin Transformer (spec 10).
    VideoSwin(VideoSwin),
}

impl Backbone {
    /// A backbone with fresh parameters; `weights` of the configuration are for the caller to load.
    pub fn new(config: &BackboneConfig, init: &Init) -> Self {
        match config.kind {
            BackboneKind::VideoSwin => Self::VideoSwin(VideoSwin::new(config, init)),
        }
    }

    /// Features of clips, averaged over space.
    ///
    /// # Shapes
    /// `[N, 3, L, H, W]` -> `[N, C, ceil(L / stride)]`; a training pass has one key a clip
    pub fn features(&self, clips: Tensor<5>, pass: Pass<'_>) -> Tensor<3> {
        match self {
            Self::VideoSwin(swin) => swin.features(clips, pass),
        }
    }

    /// Prefixes of the parameters below the backbone that the settings freeze.
    pub fn frozen_prefixes(config: &BackboneConfig) -> Vec<String> {
        match config.kind {
            BackboneKind::VideoSwin => swin::frozen_prefixes(config.frozen_stages),
        }
    }
}
