//! Check values of spec 60, and properties of windows and suppression.

#![allow(clippy::float_cmp, reason = "values that are copied or exactly representable are compared")]

use longtake_shared::config::{EvaluationConfig, NmsKind, PastEnd, SoftDecay};
use longtake_shared::units::Seconds;
use proptest::prelude::*;

use super::nms::{Kept, Suppression, groups, hard};
use super::soft::{Decay, soft};
use super::windows::{WindowPlace, merge_windows, test_windows, window_stride};
use super::*;
use crate::model::heads::Candidates;

const SEGMENTS: [[f32; 2]; 6] =
    [[0.0, 10.0], [1.0, 11.0], [0.0, 9.0], [5.0, 20.0], [0.0, 10.0], [30.0, 40.0]];

fn check_candidates() -> Candidates {
    let scores = [0.9, 0.2, 0.8, 0.1, 0.7, 0.95, 0.6, 0.0, 0.004, 0.3, 0.5, 0.006];
    Candidates { segments: SEGMENTS.to_vec(), scores: scores.to_vec(), classes: 2 }
}

/// Detections of candidates that are in seconds already.
fn above(candidates: &Candidates, threshold: f32) -> Vec<Detection> {
    let place = WindowPlace { start: 0, frames: 60, fps: 1.0, past_end: PastEnd::Clip };
    place.detections(candidates, threshold)
}

/// What is left of some windows of a video of a minute.
fn merged(windows: &[Candidates], config: &EvaluationConfig) -> Kept {
    let threshold = config.score_threshold as f32;
    let detections: Vec<Detection> = windows.iter().flat_map(|window| above(window, threshold)).collect();
    merge_windows(&detections, config, Seconds(60.0))
}

#[test]
fn weighting_gives_the_check_values() {
    let found = merged(&[check_candidates()], &EvaluationConfig::default()).detections;
    let expected = [
        ([0.049_382_7, 9.404_321], 0.95, 1),
        ([0.299_625_5, 10.011_236], 0.9, 0),
        ([5.0, 20.0], 0.6, 0),
        ([30.0, 40.0], 0.5, 0),
        ([30.0, 40.0], 0.006, 1),
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, (segment, score, label)) in found.iter().zip(expected) {
        assert_eq!((found.score, found.label), (score, label));
        for (a, b) in found.segment.iter().zip(segment) {
            assert!((a - b).abs() < 1e-5, "{found:?}");
        }
    }
}

#[test]
fn windows_of_a_video_are_suppressed_together() {
    let half = |range: std::ops::Range<usize>| {
        let all = check_candidates();
        Candidates {
            segments: all.segments[range.clone()].to_vec(),
            scores: all.scores[range.start * 2..range.end * 2].to_vec(),
            classes: 2,
        }
    };
    let config = EvaluationConfig::default();
    let together = merged(&[check_candidates()], &config);
    assert_eq!(merged(&[half(0..2), half(2..6)], &config), together);
}

#[test]
fn what_the_limit_cuts_is_counted() {
    let config = EvaluationConfig::default();
    let all = merged(&[check_candidates()], &EvaluationConfig { max_detections: -1, ..config.clone() });
    assert_eq!((all.detections.len(), all.cut), (5, 0));
    let limited = EvaluationConfig { max_detections: 2, ..config };
    let kept = merged(&[check_candidates()], &limited);
    assert_eq!((kept.detections.as_slice(), kept.cut), (&all.detections[..2], 3));
    let detections = above(&check_candidates(), 0.005);
    let of_two_hours = merge_windows(&detections, &limited, Seconds(7200.0));
    assert_eq!((of_two_hours.detections.len(), of_two_hours.cut), (4, 1));
}

#[test]
fn soft_suppression_is_as_configured() {
    let config = EvaluationConfig {
        nms: NmsKind::SoftNms,
        nms_threshold: 0.3,
        soft_decay: SoftDecay::Linear,
        soft_floor: 0.01,
        ..EvaluationConfig::default()
    };
    let expected = Suppression::Soft { decay: Decay::Linear { threshold: 0.3 }, floor: 0.01 };
    assert_eq!(Suppression::from(&config), expected);
    let gaussian = EvaluationConfig { soft_decay: SoftDecay::Gaussian, ..config };
    let expected = Suppression::Soft { decay: Decay::Gaussian { sigma: 0.3 }, floor: 0.01 };
    assert_eq!(Suppression::from(&gaussian), expected);
}

fn detections() -> Vec<Detection> {
    above(&check_candidates(), 0.005).into_iter().filter(|detection| detection.label == 0).collect()
}

#[test]
fn scores_at_the_threshold_are_dropped() {
    assert_eq!(above(&check_candidates(), 0.3).len(), 6, "0.3 itself is not above 0.3");
}

#[test]
fn hard_suppression_keeps_what_overlaps_little() {
    assert_eq!(hard(&detections(), 0.5), [0, 3, 4]);
    assert_eq!(hard(&detections(), 1.0).len(), 5);
    let config = EvaluationConfig { nms: NmsKind::Nms, ..EvaluationConfig::default() };
    let found = merged(&[check_candidates()], &config).detections;
    assert!(found.is_sorted_by(|a, b| a.score >= b.score));
    assert_eq!(found[0].segment, [0.0, 9.0]);
}

#[test]
fn soft_suppression_never_raises_a_score() {
    let before = detections();
    for decay in [Decay::Gaussian { sigma: 0.5 }, Decay::Linear { threshold: 0.3 }] {
        let after = soft(&before, decay, 0.0);
        assert_eq!(after.len(), before.len());
        assert!(after.iter().all(|(index, detection)| detection.score <= before[*index].score));
        assert_eq!(after[0], (0, before[0]));
    }
    let second =
        soft(&before, Decay::Gaussian { sigma: 0.5 }, 0.0).into_iter().find(|(index, _)| *index == 1);
    let overlap = 9.0f32 / 11.0;
    let expected = 0.8 * (-(overlap * overlap) / 0.5).exp();
    assert!(second.is_some_and(|(_, second)| second.score < expected + 1e-6));
}

#[test]
fn segments_without_length_do_not_divide_by_zero() {
    let point = Detection { segment: [3.0, 3.0], score: 0.9, label: 0 };
    let twins = [point, Detection { score: 0.8, ..point }];
    for suppression in [
        Suppression::Weighting { threshold: 0.5 },
        Suppression::Hard { threshold: 0.5 },
        Suppression::Soft { decay: Decay::Gaussian { sigma: 0.5 }, floor: 0.001 },
    ] {
        for found in suppression.apply(&twins, Some(10)).detections {
            assert!(found.score.is_finite() && found.segment == [3.0, 3.0]);
        }
    }
}

#[test]
fn groups_hold_every_detection_once() {
    let detections = detections();
    let mut members: Vec<usize> = groups(&detections, 0.5).into_iter().flatten().collect();
    members.sort_unstable();
    assert_eq!(members, (0..detections.len()).collect::<Vec<_>>());
}

/// What becomes of one class's candidates, all with score 1.
fn placed(segments: &[[f32; 2]], place: WindowPlace) -> Vec<[f32; 2]> {
    let candidates =
        Candidates { segments: segments.to_vec(), scores: vec![1.0; segments.len()], classes: 1 };
    place.detections(&candidates, 0.5).into_iter().map(|found| found.segment).collect()
}

#[test]
fn a_window_is_clipped_to_its_real_frames_and_placed_in_seconds() {
    let place = WindowPlace { start: 100, frames: 20, fps: 10.0, past_end: PastEnd::Clip };
    let found = placed(&[[-8.0, 8.0], [0.0, 16.0], [8.0, 24.0]], place);
    assert_eq!(found, [[10.0, 10.8], [10.0, 11.6], [10.8, 12.0]]);
}

#[test]
fn candidates_in_the_padding_are_dropped_unless_the_recipe_clips_them() {
    // 16 frames about 0, 8, 16, ...; the last window of the video has 20 real frames.
    let about = |centre: f32| [centre - 8.0, centre + 8.0];
    let place = |past_end| WindowPlace { start: 0, frames: 20, fps: 1.0, past_end };
    let all = [0.0, 8.0, 16.0, 24.0, 32.0].map(about);
    let dropped = placed(&all, place(PastEnd::Drop));
    assert_eq!(dropped, [[0.0, 8.0], [0.0, 16.0], [8.0, 20.0]], "centres at 24 and 32 lie past the end");
    let clipped = placed(&all, place(PastEnd::Clip));
    assert_eq!(clipped[..3], dropped);
    assert_eq!(clipped[3..], [[16.0, 20.0], [20.0, 20.0]]);
    // A centre before the start is clipped to less than half as well; one at the very end to half, and stays.
    assert_eq!(placed(&[-2.0, 20.0, 24.0].map(about), place(PastEnd::Drop)), [[12.0, 20.0]]);
    assert!(placed(&[[f32::NAN; 2]], place(PastEnd::Clip)).is_empty());
}

#[test]
fn windows_of_the_published_recipe() {
    assert_eq!(window_stride(480, 0.75), 360);
    assert_eq!(test_windows(1000, 480, 360), [0..480, 360..840, 720..1000]);
    assert_eq!(test_windows(480, 480, 360), vec![0..480; 1]);
    assert_eq!(test_windows(100, 480, 360), vec![0..100; 1]);
    assert_eq!(test_windows(840, 480, 360), [0..480, 360..840]);
}

proptest! {
    #[test]
    fn every_frame_is_in_a_window(total in 1usize..3000, window in 1usize..600, stride in 0usize..700) {
        let windows = test_windows(total, window, stride);
        let mut seen = 0;
        for range in &windows {
            prop_assert!(range.start <= seen, "a gap before {range:?}");
            prop_assert!(range.len() <= window && !range.is_empty());
            prop_assert!(range.end > seen, "{range:?} adds nothing");
            seen = range.end;
        }
        prop_assert_eq!(seen, total);
    }

    #[test]
    fn suppression_leaves_the_best_of_each_class(
        raw in prop::collection::vec((0f32..100.0, 0.1f32..30.0, 0.01f32..1.0, 0usize..3), 1..40)
    ) {
        let detections: Vec<Detection> = raw
            .iter()
            .map(|(start, length, score, label)| Detection {
                segment: [*start, start + length],
                score: *score,
                label: *label,
            })
            .collect();
        for suppression in [Suppression::Weighting { threshold: 0.5 }, Suppression::Hard { threshold: 0.5 }] {
            let found = suppression.apply(&detections, None).detections;
            prop_assert!(found.is_sorted_by(|a, b| a.score >= b.score));
            prop_assert!(found.len() <= detections.len());
            for label in 0..3 {
                let best = |list: &[Detection]| {
                    list.iter().filter(|d| d.label == label).map(|d| d.score).fold(0.0, f32::max)
                };
                prop_assert_eq!(best(&found), best(&detections));
            }
        }
    }
}
