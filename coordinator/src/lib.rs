//! Longtake.
