//! State becomes bytes, and bytes become state.
//!
//! Takes: copies of weights and optimizer, a snapshot of the memory. Gives: parts in the object store, and their names for
//! the manifest. Training goes on while they are uploaded.

mod bench;
mod load;
mod saver;
mod tensor_file;

pub use bench::SaveBench;
pub use load::{LoadError, Loaded, Loader};
pub use saver::{SaveError, SaveRequest, SavedParts, Saver};
pub use tensor_file::{NamedTensor, TensorData, TensorFile, TensorFileError};

#[cfg(test)]
mod tests;
