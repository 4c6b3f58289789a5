//! A throw-away detector: one linear classifier of every position. It exists in tests alone, to prove that the seam fits a family
//! that has no pyramid and no batch normalisation.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData, activation};

use super::{Candidates, Judged, WindowBatch};
use crate::loss::focal::sigmoid_focal;
use crate::model::layers::{Init, Linear};
use crate::model::truth::Truth;
use crate::tensors::host;

/// The only part of its loss.
pub(super) const TERMS: [&str; 1] = ["position_loss"];

/// `[C]` -> `[K]` at every position.
#[derive(Module, Debug)]
pub struct LinearLocalizer {
    classifier: Linear,
    #[module(skip)]
    stride: usize,
}

impl LinearLocalizer {
    /// For features of `channels`, one position every `stride` frames.
    pub(crate) fn new(channels: usize, classes: usize, stride: usize, init: &Init) -> Self {
        Self { classifier: Linear::torch(&init.field("classifier"), channels, classes), stride }
    }

    /// Positions of this rank that are judged: all of every sample.
    pub(super) fn count(truth: &[Option<Truth>]) -> f32 {
        truth.iter().flatten().map(|truth| truth.actions.len().max(1) as f32).sum()
    }

    /// `[B, C, T]` -> `[B, T, K]`
    fn logits(&self, features_bct: &Tensor<3>) -> Tensor<3> {
        let [batch, channels, positions] = features_bct.dims();
        let rows = features_bct.clone().swap_dims(1, 2).reshape([batch * positions, channels]);
        let logits = self.classifier.forward(rows);
        let classes = logits.dims()[1];
        logits.reshape([batch, positions, classes])
    }

    pub(super) fn judge(&self, batch: &WindowBatch<'_>, truth: &[Option<Truth>], normaliser: f32) -> Judged {
        let logits = self.logits(&batch.features_bct);
        let [count, positions, classes] = logits.dims();
        let (mut targets, mut counted) =
            (vec![0f32; count * positions * classes], vec![0f32; count * positions]);
        let mut positives = 0;
        for (sample, truth) in truth.iter().enumerate().filter_map(|(at, truth)| Some((at, truth.as_ref()?)))
        {
            for position in 0..batch.lengths[sample] {
                counted[sample * positions + position] = 1.0;
                let frame = (position * self.stride) as f32;
                for action in truth
                    .actions
                    .iter()
                    .filter(|action| action.segment[0] <= frame && frame < action.segment[1])
                {
                    targets[(sample * positions + position) * classes + action.label] = 1.0;
                    positives += 1;
                }
            }
        }
        let device = logits.device();
        let targets = Tensor::from_data(TensorData::new(targets, [count, positions, classes]), &device);
        let counted = Tensor::<3>::from_data(TensorData::new(counted, [count, positions, 1]), &device);
        let total = (sigmoid_focal(logits, targets, 0.25, 2.0) * counted).sum() / normaliser.max(1.0);
        let terms = host(total.clone().inner());
        Judged { total, terms, positives, statistics: Vec::new() }
    }

    /// Every position as a candidate of its own length.
    pub(super) fn detect(&self, batch: &WindowBatch<'_>) -> Vec<Candidates> {
        let scores = activation::sigmoid(self.logits(&batch.features_bct));
        let [_, positions, classes] = scores.dims();
        let segments: Vec<[f32; 2]> =
            (0..positions).map(|at| [(at * self.stride) as f32, ((at + 1) * self.stride) as f32]).collect();
        let of_sample = |sample: usize| {
            let scores = host(scores.clone().narrow(0, sample, 1));
            Candidates { segments: segments.clone(), scores, classes }
        };
        (0..batch.weights.len()).map(of_sample).collect()
    }
}
