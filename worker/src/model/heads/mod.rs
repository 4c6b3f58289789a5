//! A pyramid of features becomes scores and offsets.
//!
//! Takes: one map `[B, C, T_l]` a pyramid level. Gives: `HeadOutput`. Next: [`crate::loss`], or [`crate::infer`] without one.

/// Anchors, as DaoTAD and TALLFormer's THUMOS model have them.
pub mod daotad;

use burn::tensor::Tensor;

use super::norm::PendingStatistics;

/// What a head says about a batch of windows, level by level.
#[derive(Debug, Clone)]
pub struct HeadOutput {
    /// Logits `[B, A K, T_l]`: channel = anchor K + class.
    pub class_logits: Vec<Tensor<3>>,
    /// Centre and log-length offsets `[B, A 2, T_l]`: channel = anchor 2 + {0: centre, 1: length}.
    pub offsets: Vec<Tensor<3>>,
    /// Statistics of a training pass, to be installed when the step has been committed.
    pub statistics: Vec<PendingStatistics>,
}
