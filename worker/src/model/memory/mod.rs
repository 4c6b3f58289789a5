//! FEATURES -> FEATURES OF THE WHOLE WINDOW: which clips are sampled, and what is remembered of the others.
//!
//! Takes: freshly computed rows `[rows, C]` f32. Gives: remembered rows of a window. Next: [`crate::model::heads`].
//! A **row** is the features of one temporal position of one video. `docs/decisions/0001` says why rows lie in a slab
//! beside sled and not in it.

/// Which clips of a window train the backbone.
pub mod sampler;

/// The store of a worker's lanes.
pub mod store;

/// A lane's rows as they were at one moment, and as bytes of a checkpoint.
pub mod snapshot;

mod copies;
mod error;
mod folder;
mod ledger;
mod place;
mod rows;
mod slab;
mod slots;
mod survey;
mod writer;

pub use copies::RowCopies;
pub use error::{MemoryError, Warning};
pub use place::StoreFolder;
pub use sampler::{ClipChoice, choose_clips};
pub use snapshot::{Segment, Snapshot};
pub use store::{Ages, MemoryStore, RowState, WindowRows};

#[cfg(test)]
mod tests;

#[cfg(test)]
mod crash_tests;
