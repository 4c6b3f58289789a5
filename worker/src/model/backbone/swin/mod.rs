//! Video Swin Transformer (spec 10).
//!
//! Takes: clips `[N, 3, L, H, W]` f32, normalised. Gives: features `[N, C, ceil(L / 2)]`.

mod block;
mod geometry;

/// Published weights of both families.
pub mod import;

mod network;
mod stored;

pub use block::{Block, BlockSettings, Mlp, WindowAttention};
pub use geometry::{Geometry, bias_index};
pub use network::{PatchEmbed, PatchMerging, PatchProjection, Stage, VideoSwin, frozen_prefixes};

#[cfg(test)]
mod tests;
