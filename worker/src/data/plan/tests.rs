//! Windows, clips and rows, against hand-computed values.

#![allow(clippy::float_cmp, reason = "values that are copied are compared")]

use std::collections::BTreeSet;

use longtake_shared::config::{ClipSampler, DataConfig, MemoryConfig};
use longtake_shared::dataset::{Action, Subset, Video};
use longtake_shared::units::Seconds;

use super::*;

fn dataset(videos: usize, actions: &[(f64, f64)]) -> Dataset {
    let actions: Vec<Action> = (actions.iter().enumerate())
        .map(|(label, &(start, end))| Action { start: Seconds(start), end: Seconds(end), label })
        .collect();
    let video = |index: usize| Video {
        id: format!("v{index}"),
        subset: Subset::Training,
        path: format!("v{index}.mp4").into(),
        duration: Seconds(60.0),
        actions: actions.clone(),
    };
    Dataset { classes: vec!["run".into()], videos: (0..videos).map(video).collect(), remarks: vec![] }
}

fn config() -> DataConfig {
    DataConfig { fps: 10.0, window_frames: 320, clip_frames: 32, ..DataConfig::default() }
}

fn plans(data: &DataConfig, dataset: &Dataset, total: usize) -> Vec<SamplePlan> {
    let memory = MemoryConfig { sampling_rate: 0.3, ..MemoryConfig::default() };
    let config = RunConfig { data: data.clone(), memory, ..RunConfig::default() };
    let lanes = Lanes::deal(Key::root(1), 2, &dataset.subset(Subset::Training)).unwrap();
    let planner = Planner { config: &config, dataset, lanes: &lanes, root: Key::root(1) };
    (0..300)
        .flat_map(|step| (0..2).map(move |lane| (LaneId(lane), Step(step))))
        .filter_map(|(lane, step)| planner.sample(lane, step, total))
        .collect()
}

#[test]
fn windows_start_anywhere_within_the_video() {
    let starts: BTreeSet<i64> =
        plans(&config(), &dataset(2, &[]), 325).iter().map(|plan| plan.start.0).collect();
    assert_eq!(starts.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);

    let even = DataConfig { even_start: true, ..config() };
    let starts: BTreeSet<i64> = plans(&even, &dataset(2, &[]), 325).iter().map(|plan| plan.start.0).collect();
    assert_eq!(starts.into_iter().collect::<Vec<_>>(), [0, 2, 4]);

    assert!(plans(&config(), &dataset(2, &[]), 17).iter().all(|plan| plan.start.0 == 0));
}

#[test]
fn a_plan_depends_on_lane_and_step_alone() {
    let (first, second) = (plans(&config(), &dataset(4, &[]), 900), plans(&config(), &dataset(4, &[]), 900));
    assert_eq!(first, second);
    assert_ne!(first[0].start, first[1].start);
    let idle = plans(&config(), &dataset(3, &[]), 900);
    assert_eq!(idle.len(), 450, "with three videos on two lanes one lane idles every other step");
}

#[test]
fn actions_are_kept_clipped_and_moved() {
    // At 10 frames a second and with a window of frames 0 to 320: wholly inside; 80 % inside; 75 % inside (not more);
    // outside; longer than the window but filling it.
    let dataset = dataset(2, &[(1.0, 2.5), (30.0, 32.5), (30.5, 32.5), (40.0, 41.0), (0.0, 100.0)]);
    let config = RunConfig { data: config(), ..RunConfig::default() };
    let lanes = Lanes::deal(Key::root(1), 1, &dataset.subset(Subset::Training)).unwrap();
    let planner = Planner { config: &config, dataset: &dataset, lanes: &lanes, root: Key::root(1) };
    let kept = |start, total| {
        let truth = planner.truth(VideoIndex(0), start, total);
        assert_eq!((truth.video, truth.fps), (VideoIndex(0), 10.0));
        let plain = |action: &LabelledSegment| (action.label, action.segment[0], action.segment[1]);
        truth.actions.iter().map(plain).collect::<Vec<_>>()
    };
    assert_eq!(kept(0, 600), [(0, 10.0, 25.0), (1, 300.0, 320.0), (4, 0.0, 320.0)]);
    assert_eq!(kept(12, 600), [(0, 0.0, 13.0), (1, 288.0, 313.0), (2, 293.0, 313.0), (4, 0.0, 320.0)]);
    assert_eq!(kept(0, 20), [(4, 0.0, 20.0)], "a short video is its own window");
}

#[test]
fn sampled_clips_are_ascending_and_as_many_as_the_rate_says() {
    let data = config();
    for plan in plans(&data, &dataset(2, &[]), 900) {
        assert_eq!((plan.clips, plan.shift, plan.sampled.len()), (10, 0, 3));
        assert!(plan.sampled.is_sorted_by(|a, b| a < b) && plan.sampled[2] < 10);
    }
    let memory =
        MemoryConfig { sampling_rate: 0.4, sampler: ClipSampler::Uniform, ..MemoryConfig::default() };
    assert_eq!(choose_clips(&memory, 15, 15, Key::root(0)).sampled, [0, 2, 5, 8, 11, 14]);
}

#[test]
fn clips_and_rows_lie_where_the_spec_says() {
    let mut plan = plans(&config(), &dataset(2, &[]), 900).swap_remove(0);
    (plan.start, plan.shift) = (FrameIndex(7), 0);
    assert_eq!((plan.first_frame(0).0, plan.first_frame(2).0), (7, 71));
    assert_eq!((plan.first_row(0), plan.first_row(2), plan.rows_total()), (3, 35, 450));

    plan.start = FrameIndex(0);
    let reads: Vec<i64> = (0..6)
        .map(|shift| {
            plan.shift = shift;
            assert_eq!(plan.first_row(0) + plan.crop_row() as i64, 0);
            plan.first_row(0)
        })
        .collect();
    assert_eq!(reads, [0, 0, -1, -1, -2, -2], "spec 20, section 6, step 4: the rows that are written");
    assert_eq!(plan.first_frame(0).0, -5);
}

#[test]
fn a_shift_moves_the_division_and_adds_a_clip() {
    let data = DataConfig { clip_shift: true, ..config() };
    let plans = plans(&data, &dataset(2, &[]), 320);
    let shifts: BTreeSet<usize> = plans.iter().map(|plan| plan.shift).collect();
    assert_eq!(shifts, (0..32).collect());
    assert!(plans.iter().all(|plan| plan.clips == 11 && plan.sampled.len() == 3));
    let beyond = plans.iter().any(|plan| plan.sampled.contains(&10));
    assert!(beyond, "the additional clip is sampled like the others");
}
