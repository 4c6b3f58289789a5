//! ONE NUMBER -> NEW WEIGHTS: the only place where model, collective, optimizer and memory meet.
//!
//! Takes: samples, remembered rows, a loss. Gives: gradients in plain buckets. Next: [`crate::collective`] sums them.
//!
//! The rooms, each of which uses only those above it: `run` is a generation as a worker sees it, `step` is the training
//! step in data-path order, `memory` owns the rows of a worker's lanes, `state` is what outlives a generation,
//! `checkpointing` and `state_transfer` bring it to disk and to other ranks, `stages` is the loop around all of them.

/// A generation as one worker sees it: its context, its reports, its errors.
pub mod run;

/// One training step.
pub mod step;

/// The long memory of a worker's lanes.
pub mod memory;

/// What a worker keeps from one generation to the next.
pub mod state;

/// State becomes a checkpoint, and a checkpoint becomes state.
pub mod checkpointing;

/// State moves from one rank to another.
pub mod state_transfer;

/// Pretraining, training, validation, and the loop of a generation.
pub mod stages;

mod error;

pub use error::TrainError;

#[cfg(test)]
mod recovery_tests;

#[cfg(test)]
mod tests;
