//! (to be written)

/// Which clips of a window train the backbone.
pub mod sampler;
