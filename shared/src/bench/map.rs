//! How long an evaluation takes: 200 videos of 50 detections and 6 actions each, 20 classes, ten thresholds.

use std::hint::black_box;

use rand::Rng as _;

use super::{Row, Times};
use crate::metrics::{
    Detection, Detections, GroundTruth, Interval, MetricsError, Options, evaluate, thresholds,
};
use crate::random::Key;

const VIDEOS: u32 = 200;
const CLASSES: u32 = 20;
const DETECTIONS: usize = 50;
const ACTIONS: usize = 6;
const RUNS: usize = 101;

/// Measures.
///
/// # Errors
/// The evaluator refuses what was made up.
pub fn measure() -> Result<Vec<Row>, MetricsError> {
    let (truth, detections) = made_up();
    let options = Options::new(thresholds(0.5, 0.95, 10));
    evaluate(&truth, &detections, &options)?;
    let evaluation = Times::of(RUNS, || {
        let _ = black_box(evaluate(&truth, &detections, &options));
    });
    let writing = Times::of(RUNS, || {
        black_box(detections.to_json());
    });
    Ok(vec![
        evaluation.row("mAP of 200 videos x 50 detections x 20 classes, 10 thresholds"),
        writing.row("results file of the same"),
    ])
}

fn made_up() -> (GroundTruth, Detections) {
    let mut rng = Key::root(6).rng();
    let mut below = |limit: u32| rng.next_u32() % limit;
    let videos: Vec<String> = (0..VIDEOS).map(|video| format!("video{video}")).collect();
    let classes: Vec<String> = (0..CLASSES).map(|class| format!("class{class}")).collect();
    let (mut actions, mut items) = (Vec::new(), Vec::new());
    for video in 0..VIDEOS {
        for place in 0..DETECTIONS {
            let (label, start) = (below(CLASSES), f64::from(below(10_000)) / 100.0);
            let end = start + 1.0 + f64::from(below(1000)) / 100.0;
            if place < ACTIONS {
                actions.push(Interval { video, label, start, end });
            }
            let moved = start + f64::from(below(100)) / 100.0;
            let score = f64::from(below(u32::MAX)) / f64::from(u32::MAX);
            items.push(Detection { video, label, start: moved, end, score });
        }
    }
    let truth =
        GroundTruth { videos: videos.clone(), classes: classes.clone(), actions, ..GroundTruth::default() };
    (truth, Detections { videos, labels: classes, items })
}
