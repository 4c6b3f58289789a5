//! PREDICTIONS -> LOSS: formulas that detector families share.
//!
//! Takes: logits or segments, and their targets. Gives: the loss of each. Next: [`crate::model::heads`] sums them.

/// Focal loss of scores.
pub mod focal;

/// IoU, DIoU and GIoU losses of segments.
pub mod interval_iou;

/// Overlap of segments, without tensors.
pub mod overlap;
