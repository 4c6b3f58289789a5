//! The backbone as a classifier of trimmed clips: what the pretraining stage trains.

use burn::module::Module;
use burn::tensor::Tensor;
use longtake_shared::config::ModelConfig;

use super::backbone::Backbone;
use super::layers::{Init, Linear};
use super::pass::Pass;

/// A backbone and a linear classifier of its mean feature; the last class is "no action".
#[derive(Module, Debug)]
pub struct Classifier {
    /// CLIPS -> FEATURES; the part that is kept.
    pub backbone: Backbone,
    /// `[C]` -> `[classes + 1]`.
    pub classifier: Linear,
}

impl Classifier {
    /// A classifier of `classes` actions and of no action.
    pub fn new(config: &ModelConfig, classes: usize, init: &Init) -> Self {
        let config = &config.backbone;
        Self {
            backbone: Backbone::new(config, &init.field("backbone")),
            classifier: Linear::torch(&init.field("classifier"), config.channels(), classes + 1),
        }
    }

    /// # Shapes
    /// clips `[N, 3, L, H, W]` -> logits `[N, classes + 1]`
    pub fn forward(&self, clips: Tensor<5>, pass: Pass<'_>) -> Tensor<2> {
        let features_nct = self.backbone.features(clips, pass);
        self.classifier.forward(features_nct.mean_dim(2).squeeze_dim::<2>(2))
    }
}
