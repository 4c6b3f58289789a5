//! Suppression that looks only at pairs that share time gives what its definition gives, bit for bit, and much sooner.

use proptest::prelude::*;

use super::Detection;
use super::naive;
use super::nms::{Suppression, groups, hard};
use super::soft::{Decay, soft};

/// Thresholds of overlap, those at the ends of their range and beyond included.
const THRESHOLDS: [f32; 6] = [-0.5, 0.0, 0.1, 0.5, 0.9, 1.0];
const DECAYS: [Decay; 4] = [
    Decay::Gaussian { sigma: 0.5 },
    Decay::Gaussian { sigma: 0.01 },
    Decay::Linear { threshold: 0.3 },
    Decay::Linear { threshold: 0.0 },
];
const FLOORS: [f32; 4] = [0.0, 0.001, 0.1, 0.6];

/// Positions and bits: what equal means here.
fn bits(found: &[(usize, Detection)]) -> Vec<(usize, [u32; 3])> {
    let of = |found: &Detection| [found.segment[0], found.segment[1], found.score].map(f32::to_bits);
    found.iter().map(|(position, found)| (*position, of(found))).collect()
}

fn compare(detections: &[Detection]) {
    for threshold in THRESHOLDS {
        assert_eq!(hard(detections, threshold), naive::hard(detections, threshold), "{threshold}");
        assert_eq!(groups(detections, threshold), naive::groups(detections, threshold), "{threshold}");
    }
    for decay in DECAYS {
        for floor in FLOORS {
            let (fast, slow) = (soft(detections, decay, floor), naive::soft(detections, decay, floor));
            assert_eq!(bits(&fast), bits(&slow), "{decay:?}, {floor}");
        }
    }
}

fn detection((start, length, score): (f32, f32, f32)) -> Detection {
    Detection { segment: [start, start + length], score, label: 0 }
}

proptest! {
    #[test]
    fn any_detections_are_suppressed_as_defined(
        raw in prop::collection::vec((0f32..50.0, 0f32..20.0, 0f32..1.0), 0..60)
    ) {
        compare(&raw.into_iter().map(detection).collect::<Vec<_>>());
    }

    /// Few distinct values: equal scores, equal segments, segments that touch, nest or have no length.
    #[test]
    fn ties_are_suppressed_as_defined(
        raw in prop::collection::vec((0u8..8, 0u8..5, 0u8..5), 0..60)
    ) {
        let scaled = |(start, length, score): (u8, u8, u8)| {
            detection((f32::from(start), f32::from(length), f32::from(score) / 4.0))
        };
        compare(&raw.into_iter().map(scaled).collect::<Vec<_>>());
    }
}

#[test]
fn shapes_that_hurt_are_suppressed_as_defined() {
    let count = 200u16;
    let score = |index: u16| f32::from(index * 37 % count + 1) / 256.0;
    let shapes: [&dyn Fn(u16) -> (f32, f32); 5] = [
        // One inside the other, one after the other, all the same, one about all others, ever longer from one start.
        &|index| (f32::from(index), f32::from(2 * (count - index))),
        &|index| (f32::from(index), 1.0),
        &|_| (3.0, 4.0),
        &|index| if index == 0 { (0.0, f32::from(count)) } else { (f32::from(index), 0.25) },
        &|index| (0.0, f32::from(index)),
    ];
    for shape in shapes {
        for equal_scores in [false, true] {
            let detections: Vec<Detection> = (0..count)
                .map(|index| {
                    let (start, length) = shape(index);
                    detection((start, length, if equal_scores { 0.5 } else { score(index) }))
                })
                .collect();
            compare(&detections);
        }
    }
}

/// A video that is ten times as long has ten times as many pairs that share time, and a hundred times as many pairs.
#[test]
fn the_cost_grows_with_the_pairs_that_share_time() {
    let hours = |count: u32| -> Vec<Detection> {
        (0..count)
            .map(|index| {
                detection((index as f32 * 0.1, 2.0, (index * 7919 % count + 1) as f32 / count as f32))
            })
            .collect()
    };
    let long = hours(200_000);
    let begun = std::time::Instant::now();
    for suppression in [
        Suppression::Weighting { threshold: 0.5 },
        Suppression::Hard { threshold: 0.5 },
        Suppression::Soft { decay: Decay::Gaussian { sigma: 0.5 }, floor: 0.001 },
    ] {
        assert!(suppression.apply(&long, None).detections.len() > 1000);
    }
    // By the definition it is 2e10 pairs and more: minutes on any machine. This takes a second.
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}
