//! How fast the parts of a step are on this machine; `longtake bench` and `cargo bench` show it.

/// The long memory beside a plain memory map.
pub mod memory;

/// The backbone, forward and backward.
pub mod backbone;

/// The sum of a vector over ranks.
pub mod all_reduce;
