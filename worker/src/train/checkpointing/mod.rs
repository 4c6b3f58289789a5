//! State becomes a checkpoint, and a checkpoint becomes state.

/// The newest checkpoint, or the initial state.
pub mod restore_or_init;

/// Snapshots, uploads and their manifests.
pub mod save;

/// When a checkpoint is begun.
pub mod schedule;
