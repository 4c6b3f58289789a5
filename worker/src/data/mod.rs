//! VIDEO -> CLIPS: which frames a sample shows, how they are changed, and who reads them ahead of time.
//!
//! Takes: videos, annotations, a step. Gives: clips `[3, L, H, W]` f32, normalised, and the actions of their window.
//! Next: [`crate::model::backbone`].

/// One door to video files: what is in them, and their frames at any rate and size.
pub mod video;

/// Holes in files.
pub mod holes;

/// Decoders, demuxer, sampling, colour, resizing, and the store of decoded frames.
pub mod decode;

/// Random numbers as plans draw them.
mod draw;

/// Which window of which video a lane sees in a step, and which of its clips are sampled.
pub mod plan;

/// Trimmed clips for training the backbone as a classifier.
pub mod trimmed;

/// One draw of random changes a window.
pub mod augment;

/// Frames become a clip.
pub mod clip;

/// Work done ahead of time, in order.
pub mod prefetch;

/// Plans become samples.
pub mod loader;

/// A small data set of real H.264 videos whose actions are known.
pub mod synth;
