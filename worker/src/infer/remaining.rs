//! The segments of a class that suppression has not dealt with yet, searchable by overlap: a tree over their starts whose
//! nodes know the latest end below them.

use crate::loss::overlap::Span;

/// The node of the whole tree; the children of node n are 2 n and 2 n + 1.
const ROOT: usize = 1;

/// Segments by start. A search costs the logarithm of their number for each segment that is found.
#[derive(Debug)]
pub(super) struct Remaining {
    /// Leaf -> position in the list of segments.
    position: Vec<usize>,
    /// Position -> leaf.
    leaf: Vec<usize>,
    /// Leaf -> start, ascending.
    starts: Vec<f32>,
    /// Node -> latest end of the remaining segments below it; negative infinity without any.
    latest: Vec<f32>,
}

impl Remaining {
    /// All of a list of segments whose ends are numbers.
    pub(super) fn new(segments: impl Iterator<Item = Span>) -> Self {
        let segments: Vec<Span> = segments.collect();
        let mut position: Vec<usize> = (0..segments.len()).collect();
        position.sort_by(|a, b| segments[*a][0].total_cmp(&segments[*b][0]));
        let mut leaf = vec![0; segments.len()];
        for (place, at) in position.iter().enumerate() {
            leaf[*at] = place;
        }
        let leaves = segments.len().next_power_of_two();
        let mut latest = vec![f32::NEG_INFINITY; 2 * leaves];
        for (place, at) in position.iter().enumerate() {
            latest[leaves + place] = segments[*at][1];
        }
        for node in (ROOT..leaves).rev() {
            latest[node] = latest[2 * node].max(latest[2 * node + 1]);
        }
        let starts = position.iter().map(|at| segments[*at][0]).collect();
        Self { position, leaf, starts, latest }
    }

    fn leaves(&self) -> usize {
        self.latest.len() / 2
    }

    /// Takes the segment at a position of the list out.
    pub(super) fn remove(&mut self, position: usize) {
        let mut node = self.leaves() + self.leaf[position];
        self.latest[node] = f32::NEG_INFINITY;
        while node > ROOT {
            node /= 2;
            self.latest[node] = self.latest[2 * node].max(self.latest[2 * node + 1]);
        }
    }

    /// Puts the positions of the segments that share time with `reach` into `found`, earliest start first.
    pub(super) fn overlapping(&self, reach: Span, found: &mut Vec<usize>) {
        found.clear();
        let before_its_end = self.starts.partition_point(|start| *start < reach[1]);
        self.search(ROOT, 0..self.leaves(), (before_its_end, reach[0]), found);
    }

    fn search(
        &self,
        node: usize,
        covers: std::ops::Range<usize>,
        bounds: (usize, f32),
        found: &mut Vec<usize>,
    ) {
        let (leaves_wanted, start) = bounds;
        if covers.start >= leaves_wanted || self.latest[node] <= start {
            return;
        }
        if covers.len() == 1 {
            found.push(self.position[covers.start]);
            return;
        }
        let middle = usize::midpoint(covers.start, covers.end);
        self.search(2 * node, covers.start..middle, bounds, found);
        self.search(2 * node + 1, middle..covers.end, bounds, found);
    }
}
