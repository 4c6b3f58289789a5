//! Longtake's control plane: the run's protocol as a value, the loop that carries it out, the node agent, and launchers.

// Control plane: begin.
/// What a run tells whoever watches it.
pub mod updates;

/// The protocol as a value: events in, commands out.
pub mod run;

/// The one loop of a coordinator.
pub mod driver;

/// The coordinator's durable state.
pub mod journal;

/// Stop signals as an argument.
pub mod signals;

/// What `longtake status` shows.
pub mod status;

/// The coordinator's server, and where it is found.
pub mod server;

/// One a node: starts workers and watches them.
pub mod agent;

/// How workers come to be.
pub mod launch;

/// What an operator asks from another process.
pub mod operator;

/// A whole run, on this machine or on several.
pub mod train;

pub use train::{Resume, TrainError, TrainRequest, coordinate, join_as_agent, train_local};
// Control plane: end.
