//! THE TRAINING STEP, in data-path order: LOOK, REMEMBER, JUDGE, REPLAY in `pure`, between COUNT in `normaliser` and AGREE in
//! `gradient_sync`; `step_runner` is the whole, MOVE is `learner`.

/// AGREE: gradients and control values are summed over ranks.
pub mod gradient_sync;

/// MOVE: a module, its optimizer and its step.
pub mod learner;

/// Steps whose loss or gradient is not finite.
pub mod non_finite;

/// COUNT: the loss normaliser of all ranks.
pub mod normaliser;

/// The pure part of a step: features, loss, gradients.
pub mod pure;

/// A number that tells which samples a step took.
pub mod sample_fingerprint;

/// A step from samples to committed weights.
pub mod step_runner;

pub use pure::{FreshRows, InputClip, LaneInput, Pending, Sample, StepContext, StepError, step};
