//! VIDEO -> CLIPS: from files of any kind to frames of a constant rate and size.

/// One door to video files: what is in them, and their frames at any rate and size.
pub mod video;

/// Decoders, demuxer, sampling, colour, resizing, and the store of decoded frames.
pub mod decode;

/// A small data set of real H.264 videos whose actions are known.
pub mod synth;
