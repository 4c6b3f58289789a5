//! Detections of a class that overlap become one (spec 60, sections 2 and 3; TALLFormer `vedatad/misc/segment` and
//! `vedacore/ops/nms`).

use longtake_shared::config::{EvaluationConfig, NmsKind};

use super::Detection;
use crate::loss::overlap::iou;

/// Scores that soft-NMS decays below this are dropped (TALLFormer's setting).
const SOFT_FLOOR: f32 = 0.001;

/// How detections that overlap become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Suppression {
    /// Non-maximum weighting: what overlaps the best by at least `threshold` is averaged with it.
    Weighting {
        /// tIoU.
        threshold: f32,
    },
    /// What overlaps a better one by more than `threshold` is dropped.
    Hard {
        /// tIoU.
        threshold: f32,
    },
    /// Scores of what overlaps a better one decay; below `floor` they are dropped.
    Soft {
        /// How much.
        decay: Decay,
        /// Smallest score.
        floor: f32,
    },
}

/// Factor by which soft-NMS lowers the score of a detection that overlaps a better one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decay {
    /// `1 - tIoU` above `threshold`.
    Linear {
        /// tIoU.
        threshold: f32,
    },
    /// `exp(-tIoU^2 / sigma)`.
    Gaussian {
        /// Width.
        sigma: f32,
    },
}

impl Decay {
    fn factor(self, overlap: f32) -> f32 {
        match self {
            Self::Linear { threshold } if overlap > threshold => 1.0 - overlap,
            Self::Linear { .. } => 1.0,
            Self::Gaussian { sigma } => (-(overlap * overlap) / sigma).exp(),
        }
    }
}

impl From<&EvaluationConfig> for Suppression {
    fn from(config: &EvaluationConfig) -> Self {
        let threshold = config.nms_threshold as f32;
        match config.nms {
            NmsKind::Nmw => Self::Weighting { threshold },
            NmsKind::Nms => Self::Hard { threshold },
            NmsKind::SoftNms => Self::Soft { decay: Decay::Gaussian { sigma: threshold }, floor: SOFT_FLOOR },
        }
    }
}

impl Suppression {
    /// What remains of the detections of a video, class by class, best first, at most `limit` of all classes together.
    /// Equal scores keep the order in which they came.
    pub fn apply(self, detections: &[Detection], limit: usize) -> Vec<Detection> {
        let classes = detections.iter().map(|detection| detection.label + 1).max().unwrap_or(0);
        let mut kept: Vec<(usize, Detection)> = Vec::new();
        for label in 0..classes {
            let (index, members): (Vec<usize>, Vec<Detection>) = detections
                .iter()
                .copied()
                .enumerate()
                .filter(|(_, detection)| detection.label == label)
                .unzip();
            let result = match self {
                Self::Weighting { threshold } => weighting(&members, threshold),
                Self::Hard { threshold } => {
                    hard(&members, threshold).into_iter().map(|kept| (kept, members[kept])).collect()
                }
                Self::Soft { decay, floor } => soft(&members, decay, floor),
            };
            kept.extend(result.into_iter().map(|(member, detection)| (index[member], detection)));
        }
        kept.sort_by(|(a, first), (b, second)| second.score.total_cmp(&first.score).then(a.cmp(b)));
        kept.into_iter().map(|(_, detection)| detection).take(limit).collect()
    }
}

/// Positions from the best score to the worst; equal scores keep their order.
fn by_score(detections: &[Detection]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..detections.len()).collect();
    order.sort_by(|a, b| detections[*b].score.total_cmp(&detections[*a].score));
    order
}

/// Hard suppression: positions that remain, best first. An overlap equal to `threshold` is kept.
pub fn hard(detections: &[Detection], threshold: f32) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::new();
    for candidate in by_score(detections) {
        let overlaps =
            |better: &usize| iou(detections[*better].segment, detections[candidate].segment) > threshold;
        if !kept.iter().any(overlaps) {
            kept.push(candidate);
        }
    }
    kept
}

/// Groups about the best: each begins with its best position, followed by those not yet in a group whose overlap with
/// it is at least `threshold`, best first.
pub fn groups(detections: &[Detection], threshold: f32) -> Vec<Vec<usize>> {
    let mut remaining = by_score(detections);
    let mut groups = Vec::new();
    while let Some(head) = remaining.first().copied() {
        let near = |other: &usize| {
            *other == head || iou(detections[head].segment, detections[*other].segment) >= threshold
        };
        let (group, others): (Vec<usize>, Vec<usize>) = remaining.into_iter().partition(near);
        groups.push(group);
        remaining = others;
    }
    groups
}

/// Non-maximum weighting of one class: each group becomes its average, weighted by score and by overlap with the best,
/// under the score of the best. Gives the best's position with each.
fn weighting(detections: &[Detection], threshold: f32) -> Vec<(usize, Detection)> {
    groups(detections, threshold)
        .into_iter()
        .map(|group| {
            let head = group[0];
            let best = detections[head];
            let weights: Vec<f32> = group
                .iter()
                .map(|member| {
                    let other = detections[*member];
                    other.score * if *member == head { 1.0 } else { iou(best.segment, other.segment) }
                })
                .collect();
            let total: f32 = weights.iter().sum();
            let mut segment = [0.0; 2];
            for (member, weight) in group.iter().zip(weights) {
                for (sum, end) in segment.iter_mut().zip(detections[*member].segment) {
                    *sum += weight / total * end;
                }
            }
            (head, Detection { segment, ..best })
        })
        .collect()
}

/// Soft suppression of one class, in order of selection: positions and decayed detections. What falls below `floor` is
/// replaced by the last of the list, as in the reference, since the order among equal scores depends on it.
pub fn soft(detections: &[Detection], decay: Decay, floor: f32) -> Vec<(usize, Detection)> {
    let mut list: Vec<(usize, Detection)> = detections.iter().copied().enumerate().collect();
    let mut selected = 0;
    while selected < list.len() {
        let mut best = selected;
        for later in selected + 1..list.len() {
            if list[later].1.score > list[best].1.score {
                best = later;
            }
        }
        list.swap(selected, best);
        let head = list[selected].1.segment;
        let mut later = selected + 1;
        while later < list.len() {
            let other = &mut list[later].1;
            other.score *= decay.factor(iou(head, other.segment));
            if other.score < floor {
                list.swap_remove(later);
            } else {
                later += 1;
            }
        }
        selected += 1;
    }
    list
}
