//! ONE NUMBER -> NEW WEIGHTS: the only place where model, loss, collective, optimizer and memory meet.
//!
//! Takes: samples, remembered rows, a loss. Gives: gradients in plain buckets. Next: [`crate::collective`] sums them.
//!
//! [`crate::train::generation`] is what a worker does between two changes of membership; [`crate::train::step`] is the heart, top to bottom in
//! data-path order; [`crate::train::trainer`] is the loop around it.

/// Ranks agree on gradients and flags.
pub mod agree;

/// A generation goes on from what its members hold.
pub mod carry;

/// A step from samples to committed weights.
pub mod committed;

/// What a generation is for this worker.
pub mod context;

/// The loss normaliser.
pub mod count;

/// Videos that cannot be read while a run lives.
pub mod damage;

/// The memory is filled before the first step.
pub mod extract;

/// Steps that are not finite.
pub mod finite;

/// From the assignment to the last word of a generation.
pub mod generation;

/// Which calls bring all members to one state.
pub mod handover;

/// What a worker holds from one generation to the next.
pub mod holdings;

/// The memory of a worker's lanes.
pub mod lane_memory;

/// A module, its optimizer, its step.
pub mod learner;

/// The backbone learns to classify trimmed clips.
pub mod pretrain;

/// What learns, as bytes for another rank.
pub mod portable;

/// Copies of write-backs on the next rank.
pub mod replicas;

/// Numbers for whoever watches.
pub mod report;

/// Which samples a step took.
pub mod sample_ids;

/// State becomes a checkpoint, and a checkpoint becomes state.
pub mod save;

/// When a checkpoint is begun.
pub mod rhythm;

/// The newest checkpoint, or the first state.
pub mod start;

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
mod recovery_tests;

#[cfg(test)]
mod tests;
