//! Summed gradients become updated weights.
//!
//! Takes: a module, its gradients and the settings. Gives: the module with new weights. Next: [`crate::train`] commits them.
//! A module's parameters are seen as one flat vector a group, in the order of its fields: the collective sums them, the
//! norm is taken of them, and the update rules act on them.

/// Which parameter lies where in the flat vectors.
mod layout;

/// Flat vectors, one a group, and their norm.
mod flat;

/// SGD and AdamW as PyTorch does them.
mod rule;

/// The learning rate over time.
mod schedule;

pub use flat::{Flat, clip};
pub use layout::{FlatLayout, ParamEntry, ParamGroup, UnknownPrefix};
pub use rule::{Optimizer, OptimizerState, Slot};
pub use schedule::{Cycle, cosine_restart, learning_rate_factor, warmup};

use longtake_shared::config::OptimizerKind;
use longtake_shared::hint::Hint;

/// What can go wrong between gradients and new weights.
#[derive(Debug, thiserror::Error)]
pub enum OptimError {
    /// A flat vector could not be read back from its device.
    #[error("the {what} could not be read from the device: {reason}")]
    Read {
        /// What was being read.
        what: &'static str,
        /// What the device said.
        reason: String,
    },
    /// Values that do not fill the layout they are meant for.
    #[error("{found} values were given for {expected} parameters")]
    Length {
        /// Parameters of the layout.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// A saved state of another update rule.
    #[error("the saved optimizer state is of {saved:?}, but `optim.kind` is {configured:?}")]
    Kind {
        /// Rule that was saved.
        saved: OptimizerKind,
        /// Rule that is configured.
        configured: OptimizerKind,
    },
    /// A saved state that lacks a parameter.
    #[error("the saved optimizer state has no `{name}`")]
    MissingSlot {
        /// Slot and path of the parameter.
        name: String,
    },
    /// A saved state of more, or of other, parameters than the model trains.
    #[error("the saved optimizer state has `{name}`, which the model does not train")]
    UnknownSlot {
        /// Slot and path of the parameter.
        name: String,
    },
    /// A saved state whose parameter has another size.
    #[error("`{name}` of the saved optimizer state has {found} values, but the parameter has {expected}")]
    SlotLength {
        /// Slot and path of the parameter.
        name: String,
        /// Values of the parameter.
        expected: usize,
        /// Values saved.
        found: usize,
    },
}

impl Hint for OptimError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("set a smaller `memory.chunk_clips` if the device ran out of memory".into()),
            Self::Length { .. } => None,
            Self::Kind { saved, .. } => Some(format!("set `optim.kind` to what the run began with ({saved:?})")),
            Self::MissingSlot { .. } | Self::UnknownSlot { .. } | Self::SlotLength { .. } => {
                Some("resume with the `model` settings, `frozen_stages` included, that the checkpoint was saved with".into())
            }
        }
    }
}
