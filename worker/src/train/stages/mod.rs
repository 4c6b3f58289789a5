//! Pretraining, training and validation, and the loop of a generation around them.

/// From the assignment to the worker's last message of a generation.
pub mod generation;

/// The backbone learns to classify trimmed clips.
pub mod pretrain;

/// The loop of the training stage.
pub mod trainer;

/// Detections of the validation videos.
pub mod validate;
