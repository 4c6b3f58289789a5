//! Which detections of a class are shown, and in which lane: better ones higher up, none on top of another.

use super::Detection;

/// A detection and the lane it is drawn in; lane 0 is the uppermost.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub(super) detection: Detection,
    pub(super) lane: usize,
}

/// Gives each detection, best first, the uppermost lane in which it overlaps nothing; leaves out what finds no lane.
pub(super) fn place<'a>(detections: impl Iterator<Item = &'a Detection>, lanes: usize) -> Vec<Placed> {
    let mut best_first: Vec<&Detection> = detections.collect();
    best_first
        .sort_by(|a, b| b.score.total_cmp(&a.score).then(a.segment.start.0.total_cmp(&b.segment.start.0)));
    let mut placed: Vec<Placed> = Vec::new();
    for detection in best_first {
        let free = (0..lanes).find(|lane| {
            placed
                .iter()
                .filter(|other| other.lane == *lane)
                .all(|other| !overlap(&other.detection, detection))
        });
        if let Some(lane) = free {
            placed.push(Placed { detection: detection.clone(), lane });
        }
    }
    placed
}

fn overlap(a: &Detection, b: &Detection) -> bool {
    a.segment.start.0 < b.segment.end.0 && b.segment.start.0 < a.segment.end.0
}

#[cfg(test)]
mod tests {
    use longtake_shared::units::Seconds;

    use super::super::Segment;
    use super::*;

    #[test]
    fn better_detections_lie_higher_and_the_weakest_are_left_out() {
        let found = |start, end, score| Detection {
            segment: Segment { label: "dive".into(), start: Seconds(start), end: Seconds(end) },
            score,
        };
        let all = [
            found(1.0, 4.0, 0.4),
            found(0.0, 5.0, 0.9),
            found(2.0, 6.0, 0.6),
            found(5.0, 7.0, 0.3),
            found(8.0, 9.0, 0.2),
        ];
        let lanes: Vec<(f64, usize)> =
            place(all.iter(), 2).iter().map(|placed| (placed.detection.score, placed.lane)).collect();
        assert_eq!(lanes, [(0.9, 0), (0.6, 1), (0.3, 0), (0.2, 0)]);
    }
}
