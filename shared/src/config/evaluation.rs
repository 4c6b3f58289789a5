//! From scores to detections, and from detections to mAP (spec 60).

use serde::{Deserialize, Serialize};

use crate::units::Seconds;

/// An hour, in seconds.
const HOUR: f64 = 3600.0;

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
    /// tIoU from which two detections of a class are one (NMW and NMS), above which linear soft-NMS lowers a score, or sigma
    /// of Gaussian soft-NMS.
    pub nms_threshold: f64,
    /// How soft-NMS lowers the score of what overlaps a better one.
    pub soft_decay: SoftDecay,
    /// Soft-NMS drops detections whose score falls below this.
    pub soft_floor: f64,
    /// What becomes of candidates that reach past the end of their window's real frames.
    pub past_end: PastEnd,
    /// Detections kept of a video of up to an hour; of a longer one as many an hour. -1: all.
    pub max_detections: i64,
}

impl EvaluationConfig {
    /// Detections kept of a video of this length; nothing where all are.
    pub fn most_detections(&self, duration: Seconds) -> Option<usize> {
        let an_hour = usize::try_from(self.max_detections).ok()?;
        Some((an_hour as f64 * (duration.0 / HOUR).max(1.0)).ceil() as usize)
    }
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
            soft_decay: SoftDecay::Gaussian,
            soft_floor: 0.001,
            past_end: PastEnd::Drop,
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

/// How soft-NMS lowers the score of a detection that overlaps a better one (spec 60, section 3; TALLFormer
/// `vedacore/ops/nms`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SoftDecay {
    /// Times `exp(-tIoU^2 / sigma)`.
    Gaussian,
    /// Times `1 - tIoU` where that exceeds the threshold.
    Linear,
}

/// What becomes of candidates that reach past the end of their window's real frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PastEnd {
    /// A candidate whose centre lies past the end, or that clipping shortens to less than half, is dropped.
    Drop,
    /// All are clipped, as TALLFormer does.
    Clip,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_grows_with_videos_of_more_than_an_hour() {
        let config = EvaluationConfig { max_detections: 200, ..EvaluationConfig::default() };
        let most = |seconds| config.most_detections(Seconds(seconds));
        assert_eq!([most(0.0), most(136.0), most(3600.0)], [Some(200); 3]);
        assert_eq!([most(5400.0), most(10_800.0), most(3601.0)], [Some(300), Some(600), Some(201)]);
        let all = EvaluationConfig { max_detections: -1, ..config };
        assert_eq!(all.most_detections(Seconds(10_800.0)), None);
    }
}
