//! What is remembered is what was written last, in the stored type, whatever is in flight.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use longtake_shared::config::MemoryDtype;
use longtake_shared::ids::{LaneId, Step, VideoIndex};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const CHANNELS: usize = 3;
const VIDEOS: [(VideoIndex, usize); 3] = [(VideoIndex(4), 9), (VideoIndex(7), 1), (VideoIndex(9), 30)];

/// The values of a row: a function of what it is and of who wrote it.
fn row(video: u32, position: i64, step: u64) -> Vec<f32> {
    (0..CHANNELS).map(|c| video as f32 * 64.0 + position as f32 + step as f32 / 4.0 + c as f32).collect()
}

fn rows(video: u32, first: i64, count: usize, step: u64) -> Vec<f32> {
    (first..first + count as i64).flat_map(|position| row(video, position, step)).collect()
}

fn open(folder: &Path) -> MemoryStore {
    let (mut store, warnings) = MemoryStore::open_with(folder, CHANNELS, MemoryDtype::F32, 16).unwrap();
    assert_eq!(warnings, []);
    store.add_lane(LaneId(0), &VIDEOS[..2]).unwrap();
    store.add_lane(LaneId(3), &VIDEOS[2..]).unwrap();
    store
}

fn lane_of(video: u32) -> LaneId {
    LaneId(if video == 9 { 3 } else { 0 })
}

fn fresh() -> (TempDir, MemoryStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    (folder, store)
}

fn read(store: &MemoryStore, video: u32, first: i64, count: usize) -> WindowRows {
    store.read(lane_of(video), VideoIndex(video), first, count).unwrap()
}

fn write(store: &mut MemoryStore, video: u32, step: u64, first: i64, count: usize) {
    let values = rows(video, first, count, step);
    store.write(lane_of(video), VideoIndex(video), Step(step), first, &values).unwrap();
}

#[test]
fn windows_reach_over_both_ends_of_a_video() {
    let (_folder, mut store) = fresh();
    write(&mut store, 4, 5, 7, 6);
    let window = read(&store, 4, 6, 5);
    let remembered = RowState::Remembered { written: Step(5) };
    let expected = [RowState::Absent, remembered, remembered, RowState::Outside, RowState::Outside];
    assert_eq!(window.state, expected);
    let zeros = [0.0; CHANNELS].to_vec();
    let values = [zeros.clone(), row(4, 7, 5), row(4, 8, 5), zeros.clone(), zeros.clone()].concat();
    assert_eq!(window.values, values);

    write(&mut store, 4, 6, -2, 3);
    let window = read(&store, 4, -3, 5);
    assert_eq!(window.values, [zeros.clone(), zeros.clone(), zeros.clone(), row(4, 0, 6), zeros].concat());
    for (first, count) in [(-50, 3), (50, 3), (i64::MIN, 2), (i64::MAX, 2)] {
        assert!(read(&store, 4, first, count).state.iter().all(|state| *state == RowState::Outside));
    }
    write(&mut store, 4, 7, 40, 4);
    assert_eq!(store.ages(Step(10)), Ages { remembered: 3, absent: 37, mean: 14.0 / 3.0, max: 5 });
}

#[test]
fn mistakes_are_named() {
    let (folder, mut store) = fresh();
    let error = store.read(LaneId(0), VideoIndex(9), 0, 1).unwrap_err();
    assert_eq!(error.to_string(), "lane 0 of the long memory has no video #9");
    let error = store.write(LaneId(0), VideoIndex(4), Step(0), 0, &[0.0; 4]).unwrap_err();
    assert_eq!(error.to_string(), "4 values are not a whole number of rows of 3 channels");
    let error = MemoryStore::open(folder.path(), CHANNELS, MemoryDtype::F32).unwrap_err();
    assert!(matches!(error, MemoryError::InUse { .. }), "{error}");
    assert!(store.snapshot(&[LaneId(1)]).is_err());
}

#[test]
fn stored_types_round_to_nearest_even() {
    let values: Vec<f32> =
        vec![1.0, 0.1, -2.0e-8, 65504.0, 1.0e30, f32::NAN, 1.000_488_3, f32::NEG_INFINITY, 3.3];
    for dtype in [MemoryDtype::F32, MemoryDtype::F16, MemoryDtype::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = MemoryStore::open(folder.path(), CHANNELS, dtype).unwrap();
        store.add_lane(LaneId(0), &VIDEOS).unwrap();
        store.write(LaneId(0), VideoIndex(9), Step(1), 10, &values).unwrap();
        let window = store.read(LaneId(0), VideoIndex(9), 10, 3).unwrap();
        let expected: Vec<f32> = values
            .iter()
            .map(|value| match dtype {
                MemoryDtype::F32 => *value,
                MemoryDtype::F16 => f16::from_f32(*value).to_f32(),
                MemoryDtype::Bf16 => bf16::from_f32(*value).to_f32(),
            })
            .collect();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&window.values), bits(&expected), "{dtype:?}");
    }
}

#[test]
fn what_was_written_outlives_the_process() {
    let (folder, mut store) = fresh();
    write(&mut store, 9, 3, 5, 20);
    write(&mut store, 9, 4, 8, 4);
    let before = read(&store, 9, 0, 30);
    drop(store);
    let mut store = open(folder.path());
    assert_eq!(read(&store, 9, 0, 30), before);
    store.drop_lane(LaneId(3)).unwrap();
    store.add_lane(LaneId(3), &VIDEOS[2..]).unwrap();
    assert!(read(&store, 9, 0, 30).state.iter().all(|state| *state == RowState::Absent));
    drop(store);
    let store = open(folder.path());
    assert!(read(&store, 9, 0, 30).state.iter().all(|state| *state == RowState::Absent));
}

#[test]
fn a_lane_whose_videos_changed_keeps_only_what_still_fits() {
    let (folder, mut store) = fresh();
    write(&mut store, 4, 3, 0, 9);
    write(&mut store, 7, 3, 0, 1);
    drop(store);
    let (mut store, _) = MemoryStore::open(folder.path(), CHANNELS, MemoryDtype::F32).unwrap();
    store.add_lane(LaneId(0), &[(VideoIndex(4), 2)]).unwrap();
    assert_eq!(read(&store, 4, 0, 2).values, rows(4, 0, 2, 3));
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.ages(Step(3)).remembered, 2);
}

/// Slots of replaced rows come back after a commit, not before; so the slab does not grow without end.
#[test]
fn replaced_slots_are_used_again_once_that_is_safe() {
    let (_folder, mut store) = fresh();
    write(&mut store, 9, 0, 0, 30);
    write(&mut store, 9, 1, 0, 10);
    write(&mut store, 9, 2, 0, 5);
    store.flush().unwrap();
    let settled = store.slots();
    assert!((40..=45).contains(&settled), "{settled} slots for 30 rows");
    for step in 3..50 {
        write(&mut store, 9, step, 0, 10);
        store.flush().unwrap();
    }
    assert_eq!(store.slots(), settled);
    let snapshot = store.snapshot(&[LaneId(3)]).unwrap();
    write(&mut store, 9, 50, 0, 30);
    store.flush().unwrap();
    write(&mut store, 9, 51, 0, 30);
    store.flush().unwrap();
    assert!(store.slots() >= settled + 30, "the snapshot holds 30 slots");
    drop(snapshot);
    let grown = store.slots();
    for step in 52..60 {
        write(&mut store, 9, step, 0, 30);
        store.flush().unwrap();
    }
    assert_eq!(store.slots(), grown);
    assert_eq!(read(&store, 9, 0, 30).values, rows(9, 0, 30, 59));
}

#[test]
fn a_snapshot_is_not_changed_by_later_writes() {
    let (_folder, mut store) = fresh();
    write(&mut store, 9, 1, 2, 20);
    write(&mut store, 4, 2, 0, 9);
    let snapshot = store.snapshot(&[LaneId(0), LaneId(3)]).unwrap();
    let segments = |snapshot: &Snapshot| snapshot.segments(1).collect::<Result<Vec<_>, _>>().unwrap();
    let before = segments(&snapshot);
    assert_eq!(before.iter().map(|segment| segment.videos[0].0).collect::<Vec<_>>(), [4, 7, 9]);
    for step in 3..40 {
        write(&mut store, 9, step, step as i64 % 7, 12);
        if step % 5 == 0 {
            store.flush().unwrap();
        }
    }
    assert_eq!(segments(&snapshot), before);
    let after = segments(&store.snapshot(&[LaneId(0), LaneId(3)]).unwrap());
    assert_eq!(after[..2], before[..2], "videos 4 and 7 did not change, so their bytes did not");
    assert_ne!(after[2], before[2]);
}

#[test]
fn segments_put_back_rows_steps_and_absences() {
    let (_folder, mut store) = fresh();
    write(&mut store, 9, 1, 2, 20);
    write(&mut store, 9, 7, 10, 3);
    write(&mut store, 4, 2, 3, 2);
    let lanes = [LaneId(0), LaneId(3)];
    let segments: Vec<Segment> =
        store.snapshot(&lanes).unwrap().segments(2).collect::<Result<_, _>>().unwrap();
    assert_eq!(segments[0].videos, [VideoIndex(4), VideoIndex(7)]);

    let (_other_folder, mut other) = fresh();
    write(&mut other, 9, 99, 0, 30);
    write(&mut other, 7, 99, 0, 1);
    for segment in &segments {
        assert_eq!(other.restore(&segment.bytes).unwrap(), (segment.lane, segment.videos.clone()));
    }
    for (VideoIndex(video), count) in VIDEOS {
        assert_eq!(read(&other, video, 0, count), read(&store, video, 0, count), "video {video}");
    }
    let again: Vec<Segment> = other.snapshot(&lanes).unwrap().segments(2).collect::<Result<_, _>>().unwrap();
    assert_eq!(again, segments, "slots differ, bytes do not");
}

#[test]
fn segments_that_do_not_fit_are_refused() {
    let (_folder, mut store) = fresh();
    write(&mut store, 9, 1, 2, 20);
    let segment = store.snapshot(&[LaneId(3)]).unwrap().segments(1).next().unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mut other, _) = MemoryStore::open(folder.path(), CHANNELS, MemoryDtype::F16).unwrap();
    other.add_lane(LaneId(3), &VIDEOS[2..]).unwrap();
    let error = other.restore(&segment.bytes).unwrap_err().to_string();
    assert!(error.contains("F32 of shape [30, 3], and F16 of 3 channels is wanted"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let (mut other, _) = MemoryStore::open(folder.path(), CHANNELS, MemoryDtype::F32).unwrap();
    assert!(matches!(other.restore(&segment.bytes), Err(MemoryError::Unknown { .. })));
    other.add_lane(LaneId(3), &[(VideoIndex(9), 31)]).unwrap();
    let error = other.restore(&segment.bytes).unwrap_err().to_string();
    assert!(error.ends_with("video #9 has 31 rows and not 30"), "{error}");
    for cut in [0, 7, 8, 100, segment.bytes.len() - 1] {
        assert!(other.restore(&segment.bytes[..cut]).is_err(), "{cut} bytes");
    }
}

#[test]
fn a_changed_byte_makes_its_row_absent() {
    let (folder, mut store) = fresh();
    write(&mut store, 9, 1, 0, 30);
    store.flush().unwrap();
    let slab = folder.path().join("rows.slab");
    let mut bytes = std::fs::read(&slab).unwrap();
    bytes[12 * 5 + 3] ^= 64;
    std::fs::write(&slab, bytes).unwrap();
    let window = read(&store, 9, 0, 30);
    assert_eq!(window.damaged, 1);
    assert_eq!(window.state.iter().filter(|state| **state == RowState::Absent).count(), 1);
    assert_eq!(window.state[5], RowState::Absent);
    assert_eq!(window.values[5 * CHANNELS..6 * CHANNELS], [0.0; CHANNELS]);
    write(&mut store, 9, 2, 5, 1);
    assert_eq!(read(&store, 9, 5, 1).values, row(9, 5, 2));
}

#[test]
fn a_slab_that_was_cut_short_loses_only_its_end() {
    let (folder, mut store) = fresh();
    write(&mut store, 9, 1, 0, 30);
    drop(store);
    let slab = std::fs::OpenOptions::new().write(true).open(folder.path().join("rows.slab")).unwrap();
    slab.set_len(12 * 20 + 5).unwrap();
    let (mut store, warnings) = MemoryStore::open(folder.path(), CHANNELS, MemoryDtype::F32).unwrap();
    assert_eq!(warnings, [Warning::RowsLost { lane: LaneId(3), rows: 10 }]);
    store.add_lane(LaneId(3), &VIDEOS[2..]).unwrap();
    assert_eq!(read(&store, 9, 0, 20).values, rows(9, 0, 20, 1));
    assert_eq!(store.ages(Step(1)).remembered, 20);
}

#[test]
fn a_store_that_does_not_open_is_set_aside_and_rebuilt() {
    let (folder, mut store) = fresh();
    for damage in 1..=2 {
        write(&mut store, 9, 1, 0, 30);
        drop(store);
        let index = folder.path().join("index");
        std::fs::write(index.join("conf"), b"not what sled wrote").unwrap();
        let (opened, warnings) = MemoryStore::open(folder.path(), CHANNELS, MemoryDtype::F32).unwrap();
        store = opened;
        let Warning::SetAside { aside, .. } = &warnings[0] else { panic!("{warnings:?}") };
        assert!(aside.ends_with(format!("index.damaged-{damage}")) && aside.exists());
        assert!(folder.path().join(format!("rows.slab.damaged-{damage}")).exists());
        store.add_lane(LaneId(3), &VIDEOS[2..]).unwrap();
        assert_eq!(store.ages(Step(1)).remembered, 0);
    }
    drop(store);
    let (_store, warnings) = MemoryStore::open(folder.path(), CHANNELS, MemoryDtype::Bf16).unwrap();
    assert!(warnings[0].to_string().contains("3 channels, F32"), "{warnings:?}");
}

#[derive(Debug, Clone)]
enum Op {
    Write { video: usize, first: i64, count: usize },
    Read { video: usize, first: i64, count: usize },
    Snapshot,
    Restore,
    DropLane { video: usize },
    Flush,
    Reopen,
}

fn operations() -> impl Strategy<Value = Vec<Op>> {
    let window = || (0..VIDEOS.len(), -6..34i64, 0..20usize);
    let one = prop_oneof![
        8 => window().prop_map(|(video, first, count)| Op::Write { video, first, count }),
        4 => window().prop_map(|(video, first, count)| Op::Read { video, first, count }),
        1 => Just(Op::Snapshot),
        1 => Just(Op::Restore),
        1 => (0..VIDEOS.len()).prop_map(|video| Op::DropLane { video }),
        1 => Just(Op::Flush),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(one, 1..40)
}

/// What the store must remember: the step that wrote each row.
type Model = BTreeMap<(u32, i64), u64>;

fn check(store: &MemoryStore, model: &Model, video: u32, length: i64, first: i64, count: usize) {
    let window = read(store, video, first, count);
    assert_eq!(window.damaged, 0);
    for (index, position) in (first..first + count as i64).enumerate() {
        let values = &window.values[index * CHANNELS..][..CHANNELS];
        let (state, expected) = match model.get(&(video, position)) {
            Some(step) => (RowState::Remembered { written: Step(*step) }, row(video, position, *step)),
            None if (0..length).contains(&position) => (RowState::Absent, vec![0.0; CHANNELS]),
            None => (RowState::Outside, vec![0.0; CHANNELS]),
        };
        assert_eq!((window.state[index], values), (state, expected.as_slice()), "row {position}");
    }
}

fn run(operations: Vec<Op>) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Some(open(folder.path()));
    let mut model = Model::new();
    let mut kept: Option<(Vec<Segment>, Model)> = None;
    for (step, operation) in (0u64..).zip(operations) {
        let memory = store.as_mut().expect("it is opened again at once");
        match operation {
            Op::Write { video, first, count } => {
                let (VideoIndex(video), length) = VIDEOS[video];
                write(memory, video, step, first, count);
                let inside = (first..first + count as i64).filter(|row| (0..length as i64).contains(row));
                model.extend(inside.map(|row| ((video, row), step)));
            }
            Op::Read { video, first, count } => {
                let (VideoIndex(video), length) = VIDEOS[video];
                check(memory, &model, video, length as i64, first, count);
            }
            Op::Snapshot => {
                let snapshot = memory.snapshot(&[LaneId(0), LaneId(3)]).unwrap();
                kept = Some((snapshot.segments(2).collect::<Result<_, _>>().unwrap(), model.clone()));
            }
            Op::Restore => {
                if let Some((segments, then)) = &kept {
                    for segment in segments {
                        memory.restore(&segment.bytes).unwrap();
                    }
                    model = then.clone();
                }
            }
            Op::DropLane { video } => {
                let lane = lane_of(VIDEOS[video].0.0);
                let videos: Vec<_> =
                    VIDEOS.into_iter().filter(|(video, _)| lane_of(video.0) == lane).collect();
                memory.drop_lane(lane).unwrap();
                memory.add_lane(lane, &videos).unwrap();
                model.retain(|(video, _), _| lane_of(*video) != lane);
            }
            Op::Flush => memory.flush().unwrap(),
            Op::Reopen => {
                drop(store.take());
                store = Some(open(folder.path()));
            }
        }
    }
    let store = store.expect("it is opened again at once");
    for (VideoIndex(video), length) in VIDEOS {
        check(&store, &model, video, length as i64, -2, length + 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_map_does(operations in operations()) {
        run(operations);
    }
}
