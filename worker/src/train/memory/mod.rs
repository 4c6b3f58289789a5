//! The long memory of a worker's lanes: filled before the first step, written back after each, copied to the next rank.

/// The store of a worker and the lanes it holds.
pub mod lane_memory;

/// Extraction of all features before the first step.
pub mod memory_init;

/// Copies of write-backs on the next rank.
pub mod replicas;

/// Rows that wait for their step to be committed.
pub mod write_back;
