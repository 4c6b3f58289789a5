//! Which anchor answers for which action, by largest tIoU (spec 50, section 2; TALLFormer
//! `vedatad/misc/segment/assigners/max_iou_assigner.py`).

use longtake_shared::config::LossConfig;

use super::anchors::Segment;
use crate::loss::overlap::{coverage, iou};

/// What one anchor is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnchorTarget {
    /// Nothing: it takes no part in the loss.
    Ignored,
    /// That nothing happens.
    Background,
    /// The action at this position of the list.
    Action(usize),
}

/// Thresholds of the assignment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assigner {
    /// From this tIoU on, an anchor answers for the action it overlaps most.
    pub positive: f32,
    /// Below this tIoU with every action, an anchor is background.
    pub negative: f32,
    /// From this tIoU on, the best anchors of an action answer for it even below `positive`.
    pub min_positive: f32,
    /// Which anchors ignored segments hide; nothing: they have no effect (the published THUMOS14 setting).
    pub ignore: Option<Ignore>,
    /// Whether an action that overlaps no anchor claims every anchor it does not overlap, as the reference does when
    /// `min_positive` is 0. Off in training: such an action would make the whole window positive.
    pub claim_without_overlap: bool,
}

/// An anchor is ignored that shares more than `part` of a length with one ignored segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ignore {
    /// Between 0 and 1.
    pub part: f32,
    /// Whose length.
    pub of: PartOf,
}

/// Whose length a part is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartOf {
    /// The anchor's.
    Candidate,
    /// The ignored segment's.
    Region,
}

impl Ignore {
    fn hides(self, anchor: Segment, region: Segment) -> bool {
        let shared = match self.of {
            PartOf::Candidate => coverage(anchor, region),
            PartOf::Region => coverage(region, anchor),
        };
        shared > self.part
    }
}

/// The assignment of one window.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// One entry an anchor.
    pub targets: Vec<AnchorTarget>,
    /// Largest tIoU of each anchor with any action; 0 where there is none.
    pub max_overlaps: Vec<f32>,
    /// Actions that overlap no anchor at all.
    pub unmatched: usize,
}

impl From<&LossConfig> for Assigner {
    fn from(config: &LossConfig) -> Self {
        Self {
            positive: config.positive_iou as f32,
            negative: config.negative_iou as f32,
            min_positive: config.min_positive_iou as f32,
            ignore: None,
            claim_without_overlap: false,
        }
    }
}

impl Assigner {
    /// Assigns each anchor. Ties between actions go to the first; where two actions share a best anchor, to the last.
    pub fn assign(&self, anchors: &[Segment], actions: &[Segment], ignored: &[Segment]) -> Assignment {
        if actions.is_empty() {
            return Assignment {
                targets: vec![AnchorTarget::Background; anchors.len()],
                max_overlaps: vec![0.0; anchors.len()],
                unmatched: 0,
            };
        }
        let overlaps = self.overlaps(anchors, actions, ignored);
        let mut targets = vec![AnchorTarget::Ignored; anchors.len()];
        let mut max_overlaps = vec![f32::NEG_INFINITY; anchors.len()];
        for (anchor, target) in targets.iter_mut().enumerate() {
            let mut best = 0;
            for (action, row) in overlaps.iter().enumerate() {
                if row[anchor] > max_overlaps[anchor] {
                    (best, max_overlaps[anchor]) = (action, row[anchor]);
                }
            }
            let overlap = max_overlaps[anchor];
            if overlap >= self.positive {
                *target = AnchorTarget::Action(best);
            } else if (0.0..self.negative).contains(&overlap) {
                *target = AnchorTarget::Background;
            }
        }
        let mut unmatched = 0;
        for (action, row) in overlaps.iter().enumerate() {
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if best <= 0.0 {
                unmatched += 1;
            }
            if best >= self.min_positive && (best > 0.0 || self.claim_without_overlap) {
                for (target, overlap) in targets.iter_mut().zip(row) {
                    if overlap.to_bits() == best.to_bits() {
                        *target = AnchorTarget::Action(action);
                    }
                }
            }
        }
        Assignment { targets, max_overlaps, unmatched }
    }

    /// One row an action; -1 for ignored anchors. Each value is computed once, so that a row's best equals itself.
    fn overlaps(&self, anchors: &[Segment], actions: &[Segment], ignored: &[Segment]) -> Vec<Vec<f32>> {
        let hidden: Vec<bool> = anchors
            .iter()
            .map(|anchor| {
                self.ignore.is_some_and(|ignore| ignored.iter().any(|region| ignore.hides(*anchor, *region)))
            })
            .collect();
        actions
            .iter()
            .map(|action| {
                anchors
                    .iter()
                    .zip(&hidden)
                    .map(|(anchor, hidden)| if *hidden { -1.0 } else { iou(*action, *anchor) })
                    .collect()
            })
            .collect()
    }
}
