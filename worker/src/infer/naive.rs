//! Suppression by its definition, pair by pair: what the fast one is compared with.

use super::Detection;
use super::nms::by_score;
use super::soft::Decay;
use crate::loss::overlap::iou;

/// As [`super::nms::hard`].
pub(super) fn hard(detections: &[Detection], threshold: f32) -> Vec<usize> {
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

/// As [`super::nms::groups`].
pub(super) fn groups(detections: &[Detection], threshold: f32) -> Vec<Vec<usize>> {
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

/// As [`super::soft::soft`].
pub(super) fn soft(detections: &[Detection], decay: Decay, floor: f32) -> Vec<(usize, Detection)> {
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
