//! Soft-NMS of one class: scores of what overlaps a better detection decay (spec 60, section 3; TALLFormer
//! `vedacore/ops/nms`).

use super::Detection;
use super::remaining::Remaining;
use crate::loss::overlap::iou;

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
    /// 1 for detections that share no time.
    pub(super) fn factor(self, overlap: f32) -> f32 {
        match self {
            Self::Linear { threshold } if overlap > threshold => 1.0 - overlap,
            Self::Linear { .. } => 1.0,
            Self::Gaussian { sigma } => (-(overlap * overlap) / sigma).exp(),
        }
    }
}

/// Soft suppression of one class, in order of selection: positions and decayed detections. What falls below `floor` is
/// replaced by the last of the list, as in the reference, since the order among equal scores depends on it.
pub fn soft(detections: &[Detection], decay: Decay, floor: f32) -> Vec<(usize, Detection)> {
    let mut scores: Vec<f32> = detections.iter().map(|detection| detection.score).collect();
    let mut remaining = Remaining::new(detections.iter().map(|detection| detection.segment));
    let mut list = Places::new(&scores);
    // The first pass looks at every detection; later ones change only those that share time with the selected one.
    let mut below: Vec<usize> = (0..scores.len()).filter(|at| scores[*at] < floor).collect();
    let (mut found, mut selected) = (Vec::new(), 0);
    while selected < list.members.len() {
        let head = list.select(selected);
        remaining.remove(head);
        below.retain(|member| *member != head);
        remaining.overlapping(detections[head].segment, &mut found);
        for member in &found {
            let already_below = scores[*member] < floor;
            scores[*member] *= decay.factor(iou(detections[head].segment, detections[*member].segment));
            if scores[*member] < floor {
                below.extend((!already_below).then_some(*member));
            } else {
                list.best.set(list.place[*member], scores[*member]);
            }
        }
        for member in &below {
            remaining.remove(*member);
        }
        list.drop_all(&below, &scores);
        below.clear();
        selected += 1;
    }
    list.members
        .into_iter()
        .map(|member| (member, Detection { score: scores[member], ..detections[member] }))
        .collect()
}

/// The list of the reference: the selected detections, then the others in an order that dropping changes.
struct Places {
    /// Place -> detection.
    members: Vec<usize>,
    /// Detection -> place.
    place: Vec<usize>,
    dropped: Vec<bool>,
    /// Scores by place; those that are selected or dropped count no more.
    best: Best,
}

impl Places {
    fn new(scores: &[f32]) -> Self {
        let members: Vec<usize> = (0..scores.len()).collect();
        Self { place: members.clone(), members, dropped: vec![false; scores.len()], best: Best::new(scores) }
    }

    /// Brings the best of those from `selected` on to that place. Among equal scores the first place wins.
    fn select(&mut self, selected: usize) -> usize {
        let best = self.best.first().max(selected);
        let score = self.best.at(selected);
        self.best.set(best, score);
        self.best.set(selected, f32::NEG_INFINITY);
        self.members.swap(selected, best);
        self.place[self.members[best]] = best;
        self.place[self.members[selected]] = selected;
        self.members[selected]
    }

    /// Drops some detections as a pass from the first place to the last does: the last one comes to the place of each, and
    /// may have to go from there too.
    fn drop_all(&mut self, gone: &[usize], scores: &[f32]) {
        let mut places: Vec<usize> = gone.iter().map(|member| self.place[*member]).collect();
        places.sort_unstable();
        for member in gone {
            self.dropped[*member] = true;
        }
        for place in places {
            while self.members.get(place).is_some_and(|member| self.dropped[*member]) {
                self.members.swap_remove(place);
                self.best.set(self.members.len(), f32::NEG_INFINITY);
                if let Some(&moved) = self.members.get(place) {
                    self.place[moved] = place;
                    self.best.set(place, scores[moved]);
                }
            }
        }
    }
}

/// The largest of a list of scores, found in the logarithm of their number.
struct Best {
    nodes: Vec<f32>,
}

impl Best {
    fn new(scores: &[f32]) -> Self {
        let leaves = scores.len().next_power_of_two();
        let mut nodes = vec![f32::NEG_INFINITY; 2 * leaves];
        nodes[leaves..leaves + scores.len()].copy_from_slice(scores);
        for node in (1..leaves).rev() {
            nodes[node] = nodes[2 * node].max(nodes[2 * node + 1]);
        }
        Self { nodes }
    }

    fn at(&self, place: usize) -> f32 {
        self.nodes[self.nodes.len() / 2 + place]
    }

    fn set(&mut self, place: usize, score: f32) {
        let mut node = self.nodes.len() / 2 + place;
        self.nodes[node] = score;
        while node > 1 {
            node /= 2;
            self.nodes[node] = self.nodes[2 * node].max(self.nodes[2 * node + 1]);
        }
    }

    /// The first place of the largest score.
    fn first(&self) -> usize {
        let leaves = self.nodes.len() / 2;
        let mut node = 1;
        while node < leaves {
            node = if self.nodes[2 * node + 1] > self.nodes[2 * node] { 2 * node + 1 } else { 2 * node };
        }
        node - leaves
    }
}
