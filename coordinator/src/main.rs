//! Longtake.
fn main() {}
