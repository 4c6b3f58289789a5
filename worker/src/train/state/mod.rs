//! What a worker keeps from one generation to the next.

/// Model, optimizer, counters and memory of a worker.
pub mod worker_state;
