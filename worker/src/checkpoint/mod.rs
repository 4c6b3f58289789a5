//! State becomes bytes, and bytes become state.
//!
//! Takes: copies of weights and optimizer, a snapshot of the memory. Gives: parts in the object store, and their names for
//! the manifest. Training goes on while they are uploaded.

mod bench;
mod load;
mod saver;

pub use bench::SaveBench;
pub use load::{LoadError, Loaded, Loader};
pub use saver::{SaveError, SaveRequest, SavedParts, Saver};

#[cfg(test)]
mod tests;
