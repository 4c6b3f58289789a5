//! Clips become features: the Video Swin Transformer, one clip at a time or a whole window chunk by chunk.
//!
//! Takes: clips, each `[3, L, H, W]` f32, normalised. Gives: features of every second frame. Next: [`crate::model::memory`].

mod block;
/// A window of frames, clip by clip.
pub mod chunked;
mod geometry;
/// Published weights.
pub mod import;
mod stored;
mod video_swin;

pub use block::{Block, BlockSettings, Mlp, WindowAttention};
pub use geometry::{Geometry, bias_index};
pub use video_swin::{PatchEmbed, PatchMerging, PatchProjection, Stage, VideoSwin, frozen};

#[cfg(test)]
mod tests;
