//! ONE NUMBER -> NEW WEIGHTS: the only place where model, loss, collective, optimizer and memory meet.
//!
//! [`crate::train::generation`] is what a worker does between two changes of membership; [`crate::train::step`] is the heart, top to bottom in
//! data-path order; [`crate::train::trainer`] is the loop around it.

/// Ranks agree on gradients and flags.
pub mod agree;

/// A step from samples to committed weights.
pub mod committed;

/// What a generation is for this worker.
pub mod context;

/// The loss normaliser.
pub mod count;

/// The memory is filled before the first step.
pub mod extract;

/// From the assignment to the last word of a generation.
pub mod generation;

/// A module, its optimizer, its step.
pub mod learner;

/// The backbone learns to classify trimmed clips.
pub mod pretrain;

/// Numbers for whoever watches.
pub mod report;

/// State becomes a checkpoint, and a checkpoint becomes state.
pub mod save;

/// One training step.
pub mod step;

/// Modules with and without a tape, and as named tensors.
pub mod tape;

/// The loop.
pub mod trainer;

/// The detector is evaluated.
pub mod validate;

/// Waiting for other ranks is told apart from working.
pub mod waiting;

mod error;

pub use error::TrainError;

#[cfg(test)]
mod tests;
