//! State moves between ranks when a generation forms without going back to a checkpoint.

/// A state as bytes.
pub mod codec;

/// The transfers of a plan, carried out.
pub mod execute;

/// Which transfers bring all members to one state.
pub mod plan;
