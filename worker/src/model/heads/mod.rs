//! FEATURES OF A WINDOW -> LOSS OR CANDIDATES: the one seam that every detector family implements.
//!
//! Takes: features of whole windows `[B, C, T]`, fresh and remembered. Gives: a loss in training, scored segments else. Next:
//! [`crate::train`] goes backward from the loss; [`crate::infer`] merges segments into detections.
//!
//! A family keeps its outputs, targets and losses to itself. `docs/ADDING_A_DETECTOR.md` names every file a new one touches.

/// DaoTAD: anchors on a feature pyramid.
pub mod daotad;

#[cfg(test)]
pub(crate) mod linear;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use longtake_shared::config::{DetectorKind, RunConfig};

use self::daotad::DaoTad;
#[cfg(test)]
use self::linear::LinearLocalizer;
use super::layers::Init;
use super::norm::{MomentsReducer, PendingStatistics};
use super::pass::Pass;
use super::truth::Truth;

/// Loss terms that a step can report; the names of those in use are [`Localizer::terms`].
pub const MAX_TERMS: usize = 8;

/// Everything after the backbone.
#[derive(Module, Debug)]
#[cfg_attr(
    test,
    allow(clippy::large_enum_variant, reason = "a run has one localizer, and tests alone have a small one")
)]
pub enum Localizer {
    /// TALLFormer's detector on THUMOS14 (spec 40).
    DaoTad(DaoTad),
    /// A linear classifier of every position, which proves that the seam fits another family.
    #[cfg(test)]
    Linear(LinearLocalizer),
}

/// Features of a batch of windows.
#[derive(Debug, Clone)]
pub struct WindowBatch<'a> {
    /// `[B, C, T]`; the features of an idle sample must be finite, zeros are.
    pub features_bct: Tensor<3>,
    /// Positions of each window that show the video; those after them are padding.
    pub lengths: &'a [usize],
    /// 1 for a sample, 0 for an idle lane, which enters no statistic and no loss.
    pub weights: &'a [f32],
}

/// How a pass through a localizer behaves.
#[derive(Debug, Clone, Copy)]
pub struct HeadPass<'a> {
    /// Training with one key a sample, or evaluation.
    pub pass: Pass<'a>,
    /// Sums over the whole batch, which lies on all ranks.
    pub sums: &'a Arc<dyn MomentsReducer>,
}

/// The loss of a batch.
#[derive(Debug)]
pub struct Judged {
    /// What is minimised, `[1]`: this rank's sum over its samples, divided by the normaliser of all ranks.
    pub total: Tensor<1>,
    /// The parts of the loss, in the order of [`Localizer::terms`].
    pub terms: Vec<f32>,
    /// Predictions that are matched with an action.
    pub positives: usize,
    /// Statistics to install once the step is committed, in order.
    pub statistics: Vec<PendingStatistics>,
}

/// Scored segments of one window, before they are merged with those of other windows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Candidates {
    /// Start and end of each, in frames from the start of the window; they may reach past its ends.
    pub segments: Vec<[f32; 2]>,
    /// Row by row, `classes` a segment.
    pub scores: Vec<f32>,
    /// Number of classes.
    pub classes: usize,
}

/// Why a localizer cannot take a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The window is longer than the model was built for.
    #[error(transparent)]
    TooLong(#[from] super::neck::consistency::TooLong),
}

impl longtake_shared::hint::Hint for HeadError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooLong(error) => error.hint(),
        }
    }
}

impl Localizer {
    /// A localizer of the configured kind with fresh parameters.
    pub fn new(config: &RunConfig, classes: usize, init: &Init) -> Self {
        match config.model.kind {
            DetectorKind::DaoTad => Self::DaoTad(DaoTad::new(config, classes, init)),
        }
    }

    /// COUNT: this rank's share of the loss normaliser, from ground truth alone; idle lanes have none.
    pub fn count(&self, truth: &[Option<Truth>]) -> f32 {
        match self {
            Self::DaoTad(daotad) => daotad.count(truth),
            #[cfg(test)]
            Self::Linear(_) => LinearLocalizer::count(truth),
        }
    }

    /// JUDGE: targets, forward pass and loss of a batch. `normaliser` is [`Self::count`] summed over all ranks. A sample without
    /// truth is idle: it adds exactly zero, with gradients that are zero.
    ///
    /// # Errors
    /// The window is longer than the model was built for.
    pub fn judge(
        &self,
        batch: &WindowBatch<'_>,
        truth: &[Option<Truth>],
        normaliser: f32,
        cx: HeadPass<'_>,
    ) -> Result<Judged, HeadError> {
        match self {
            Self::DaoTad(daotad) => daotad.judge(batch, truth, normaliser, cx),
            #[cfg(test)]
            Self::Linear(linear) => Ok(linear.judge(batch, truth, normaliser)),
        }
    }

    /// DETECT: the candidates of each window of a batch, at most `top_k` positions of each pyramid level.
    ///
    /// # Errors
    /// The window is longer than the model was built for.
    pub fn detect(
        &self,
        batch: &WindowBatch<'_>,
        top_k: usize,
        cx: HeadPass<'_>,
    ) -> Result<Vec<Candidates>, HeadError> {
        match self {
            Self::DaoTad(daotad) => daotad.detect(batch, top_k, cx),
            #[cfg(test)]
            Self::Linear(linear) => Ok(linear.detect(batch)),
        }
    }

    /// Names of the parts of the loss, as metrics show them; at most [`MAX_TERMS`].
    pub fn terms(&self) -> &'static [&'static str] {
        match self {
            Self::DaoTad(_) => &daotad::TERMS,
            #[cfg(test)]
            Self::Linear(_) => &linear::TERMS,
        }
    }
}
