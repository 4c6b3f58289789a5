//! Detections of a class that overlap become one (spec 60, sections 2 and 3; TALLFormer `vedatad/misc/segment` and
//! `vedacore/ops/nms`).

use longtake_shared::config::{EvaluationConfig, NmsKind, SoftDecay};

use super::Detection;
use super::remaining::Remaining;
use super::soft::{Decay, soft};
use crate::loss::overlap::iou;

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

impl From<&EvaluationConfig> for Suppression {
    fn from(config: &EvaluationConfig) -> Self {
        let threshold = config.nms_threshold as f32;
        match config.nms {
            NmsKind::Nmw => Self::Weighting { threshold },
            NmsKind::Nms => Self::Hard { threshold },
            NmsKind::SoftNms => {
                let decay = match config.soft_decay {
                    SoftDecay::Gaussian => Decay::Gaussian { sigma: threshold },
                    SoftDecay::Linear => Decay::Linear { threshold },
                };
                Self::Soft { decay, floor: config.soft_floor as f32 }
            }
        }
    }
}

/// What suppression leaves of the detections of a video.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Kept {
    /// Best first.
    pub detections: Vec<Detection>,
    /// How many more there would be without a limit.
    pub cut: usize,
}

impl Suppression {
    /// What remains of the detections of a video, class by class, best first, at most `limit` of all classes together.
    /// Equal scores keep the order in which they came. The cost is that of sorting, and of looking at each pair that shares
    /// time.
    pub fn apply(self, detections: &[Detection], limit: Option<usize>) -> Kept {
        let mut kept: Vec<(usize, Detection)> = Vec::new();
        for index in by_class(detections) {
            let members: Vec<Detection> = index.iter().map(|at| detections[*at]).collect();
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
        let limit = limit.unwrap_or(usize::MAX);
        let cut = kept.len().saturating_sub(limit);
        Kept { detections: kept.into_iter().map(|(_, detection)| detection).take(limit).collect(), cut }
    }
}

/// Positions of the detections of each class, in order.
fn by_class(detections: &[Detection]) -> Vec<Vec<usize>> {
    let classes = detections.iter().map(|detection| detection.label + 1).max().unwrap_or(0);
    let mut members = vec![Vec::new(); classes];
    for (index, detection) in detections.iter().enumerate() {
        members[detection.label].push(index);
    }
    members
}

/// Positions from the best score to the worst; equal scores keep their order.
pub(super) fn by_score(detections: &[Detection]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..detections.len()).collect();
    order.sort_by(|a, b| detections[*b].score.total_cmp(&detections[*a].score));
    order
}

/// Hard suppression: positions that remain, best first. An overlap equal to `threshold` is kept.
pub fn hard(detections: &[Detection], threshold: f32) -> Vec<usize> {
    let near = |overlap: f32| overlap > threshold;
    grouped(detections, near).into_iter().map(|group| group[0]).collect()
}

/// Groups about the best: each begins with its best position, followed by those not yet in a group whose overlap with
/// it is at least `threshold`, best first.
pub fn groups(detections: &[Detection], threshold: f32) -> Vec<Vec<usize>> {
    grouped(detections, |overlap| overlap >= threshold)
}

/// Groups of the best and those not yet in a group whose tIoU with it is `near`, best first.
fn grouped(detections: &[Detection], near: impl Fn(f32) -> bool) -> Vec<Vec<usize>> {
    let order = by_score(detections);
    let mut rank = vec![0; order.len()];
    for (place, at) in order.iter().enumerate() {
        rank[*at] = place;
    }
    let mut remaining = Remaining::new(detections.iter().map(|detection| detection.segment));
    let mut taken = vec![false; order.len()];
    let mut found = Vec::new();
    let mut groups = Vec::new();
    for head in order {
        if taken[head] {
            continue;
        }
        remaining.remove(head);
        let best = detections[head].segment;
        // Where no overlap at all is near enough, so is everything.
        remaining.overlapping(if near(0.0) { [f32::NEG_INFINITY, f32::INFINITY] } else { best }, &mut found);
        found.retain(|other| near(iou(best, detections[*other].segment)));
        found.sort_unstable_by_key(|other| rank[*other]);
        for other in &found {
            taken[*other] = true;
            remaining.remove(*other);
        }
        groups.push(std::iter::once(head).chain(found.iter().copied()).collect());
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
