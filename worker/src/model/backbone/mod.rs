//! Clips become features: the Video Swin Transformer, one clip at a time or a whole window chunk by chunk.

mod block;
/// A window of frames, clip by clip.
pub mod chunked;
mod geometry;
mod video_swin;

pub use block::{Block, Mlp, WindowAttention};
pub use video_swin::{PatchEmbed, PatchMerging, Stage, VideoSwin, frozen};

#[cfg(test)]
mod tests;
