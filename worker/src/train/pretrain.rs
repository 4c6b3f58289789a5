//! The first stage: the backbone as a classifier of trimmed clips, in place of Kinetics weights where none can be had.
//!
//! Takes: trimmed clips `[N, 3, L, H, W]` with a label each. Gives: the gradient of their mean cross-entropy over the
//! global batch. Next: [`crate::train::agree`].

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData, activation};
use longtake_shared::config::BackboneConfig;
use longtake_shared::random::Key;

use super::learner::Learner;
use super::tape;
use crate::model::backbone::VideoSwin;
use crate::model::layers::{Init, Linear};
use crate::model::pass::Pass;
use crate::optim::{Flat, OptimError};

/// A backbone and a linear classifier of its mean feature; the last class is "no action".
#[derive(Module, Debug)]
pub struct Classifier {
    /// CLIPS -> FEATURES; the part that is kept.
    pub backbone: VideoSwin,
    /// `[C]` -> `[classes + 1]`.
    pub classifier: Linear,
}

impl Classifier {
    /// A classifier of `classes` actions and of no action.
    pub fn new(config: &BackboneConfig, classes: usize, init: &Init) -> Self {
        Self {
            backbone: VideoSwin::new(config, &init.field("backbone")),
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

/// A trimmed clip of this rank's share of the batch.
#[derive(Debug, Clone)]
pub struct TrimmedClip {
    /// `[3, L, H, W]`, normalised.
    pub pixels: Vec<f32>,
    /// Class, or the number of classes where there is no action.
    pub label: usize,
    /// What its drop path draws from: depends on its place in the global batch, not on the rank.
    pub key: Key,
}

/// What a batch of clips came to on this rank.
#[derive(Debug)]
pub struct Classified {
    /// Gradient of this rank's share of the mean loss.
    pub gradients: Flat,
    /// This rank's share of the mean loss.
    pub loss: f32,
    /// Clips whose best class was the right one.
    pub correct: f32,
}

/// Cross-entropy of this rank's clips over the size of the global batch, and its gradient. Clips have the shape
/// `[3, L, H, W]` given; a rank without clips contributes zeros.
///
/// # Errors
/// The device failed.
pub fn classify(
    learner: &Learner<Classifier>,
    clips: &[TrimmedClip],
    shape: [usize; 4],
    global_batch: usize,
    device: &Device,
) -> Result<Classified, OptimError> {
    if clips.is_empty() {
        let zeros = vec![0.0; learner.layout().len()];
        let gradients = Flat::from_host(learner.layout(), &zeros, device)?;
        return Ok(Classified { gradients, loss: 0.0, correct: 0.0 });
    }
    let model = learner.taped();
    let keys: Vec<Key> = clips.iter().map(|clip| clip.key).collect();
    let input = stack(clips.iter().map(|clip| clip.pixels.as_slice()), shape, device).autodiff();
    let logits_nk = model.forward(input, Pass::Train { keys: &keys });
    let [count, classes] = logits_nk.dims();
    let correct = count_correct(&tape::host(logits_nk.clone().inner()), clips, classes);
    let mut target = vec![0f32; count * classes];
    for (row, clip) in clips.iter().enumerate() {
        target[row * classes + clip.label] = -1.0 / global_batch as f32;
    }
    let target = Tensor::<2>::from_data(TensorData::new(target, [count, classes]), device).autodiff();
    let loss = (activation::log_softmax(logits_nk, 1) * target).sum();
    let value = tape::host(loss.clone().inner())[0];
    let mut gradients = loss.backward();
    let gradients = learner.layout().gather_gradients(&model, &mut gradients);
    Ok(Classified { gradients, loss: value, correct })
}

/// Clips as one tensor `[N, 3, L, H, W]`.
pub fn stack<'a>(clips: impl Iterator<Item = &'a [f32]>, shape: [usize; 4], device: &Device) -> Tensor<5> {
    let mut values = Vec::new();
    let mut count = 0;
    for clip in clips {
        values.extend_from_slice(clip);
        count += 1;
    }
    let [channels, frames, height, width] = shape;
    Tensor::from_data(TensorData::new(values, [count, channels, frames, height, width]), device)
}

fn count_correct(logits: &[f32], clips: &[TrimmedClip], classes: usize) -> f32 {
    logits
        .chunks_exact(classes)
        .zip(clips)
        .filter(|(row, clip)| {
            let best = (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            best == Some(clip.label)
        })
        .count() as f32
}
