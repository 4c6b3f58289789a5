//! DETECTIONS -> ONE NUMBER.
//!
//! Takes: `HeadOutput` and what really happens in each window. Gives: `LossParts`.
//! Next: [`crate::train`] goes backward from them. Targets need no features, so they come first: the loss is divided by a
//! normaliser that is summed over all ranks before anything else is computed.

/// Which anchor answers for which action.
pub mod assigner;

/// Targets of a batch, and the whole loss.
pub mod criterion;

/// Focal loss of scores.
pub mod focal;

/// Overlap of segments, without tensors.
pub mod overlap;

/// IoU, DIoU and GIoU losses of segments.
pub mod segments;

pub use criterion::{Criterion, LabelledSegment, LossParts, SampleTargets, local_normaliser};

#[cfg(test)]
mod tests;
