//! Clips become features, features become detections.
//!
//! Takes: clips `[N, 3, L, H, W]` f32 and remembered features. Gives: scores and offsets a level.
//! **What is absent:** no file, no rank, no clock. Remembered features come in as an argument; fresh ones go out as a result.

/// The whole: a backbone and a localizer.
pub mod detector;

/// The backbone as a classifier of trimmed clips.
pub mod classifier;

/// What is annotated in a window.
pub mod truth;

/// CLIPS -> FEATURES.
pub mod backbone;

/// FEATURES -> FEATURES OF THE WHOLE WINDOW.
pub mod memory;

/// -> CONSISTENT FEATURES: temporal reduction, TCM, TDM, FPN.
pub mod neck;

/// -> LOSS OR CANDIDATES: one folder a detector family.
pub mod heads;

/// Layers with PyTorch's names and layouts, and how they begin.
pub mod layers;

/// How a forward pass behaves: training or not, which random numbers, which ranks share statistics.
pub mod pass;

/// Convolution over time.
pub mod conv1d;

/// Batch normalisation over all ranks.
pub mod norm;

/// Operations with their own backward pass.
pub mod ops;
