//! From scores to detections, and from detections to mAP (spec 60).

use serde::{Deserialize, Serialize};

/// Sliding windows, suppression, tIoU thresholds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// tIoU thresholds of the mAP.
    pub tiou: Vec<f64>,
    /// Distance of two test windows, over the window's length.
    pub window_stride: f64,
    /// Detections at or below this score are dropped.
    pub score_threshold: f64,
    /// Anchors of a level kept before suppression.
    pub top_k: usize,
    /// How overlapping detections of a class are merged.
    pub nms: NmsKind,
    /// tIoU from which two detections of a class are one (NMW and NMS), or sigma of soft-NMS.
    pub nms_threshold: f64,
    /// Detections kept a video.
    pub max_detections: usize,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            tiou: vec![0.3, 0.4, 0.5, 0.6, 0.7],
            window_stride: 0.75,
            score_threshold: 0.005,
            top_k: 1000,
            nms: NmsKind::Nmw,
            nms_threshold: 0.5,
            max_detections: 1200,
        }
    }
}

/// How overlapping detections of a class are merged (spec 60, sections 2 and 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NmsKind {
    /// Non-maximum weighting: overlapping detections are averaged, weighted by score and overlap.
    Nmw,
    /// Suppression of what overlaps a better one.
    Nms,
    /// Scores of what overlaps a better one decay.
    SoftNms,
}
