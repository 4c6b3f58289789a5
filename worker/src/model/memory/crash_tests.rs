//! A crash leaves each row as it was or as it became, and all that was flushed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use longtake_shared::config::MemoryDtype;
use longtake_shared::ids::{LaneId, Step, VideoIndex};
use longtake_shared::random::Key;
use rand::RngExt as _;

use super::*;

const CHANNELS: usize = 64;
const LANE: LaneId = LaneId(0);
const VIDEO: VideoIndex = VideoIndex(0);
const ROWS: usize = 200;
const CHILD_FOLDER: &str = "LONGTAKE_TEST_CRASH_FOLDER";

fn values(position: usize, step: u64) -> Vec<f32> {
    (0..CHANNELS).map(|channel| (position * 1000 + channel) as f32 + step as f32 * 0.5).collect()
}

/// Where and how many rows a step writes.
fn window(step: u64) -> (usize, usize) {
    let mut rng = Key::root(1).child("step", step).rng();
    let first = rng.random_range(0..ROWS);
    (first, rng.random_range(1..40).min(ROWS - first))
}

fn open(folder: &Path) -> MemoryStore {
    let (mut store, warnings) = MemoryStore::open_with(folder, CHANNELS, MemoryDtype::F32, 64).unwrap();
    assert_eq!(warnings, []);
    store.add_lane(LANE, &[(VIDEO, ROWS)]).unwrap();
    store
}

fn write(store: &mut MemoryStore, step: u64) {
    let (first, count) = window(step);
    let rows: Vec<f32> = (first..first + count).flat_map(|position| values(position, step)).collect();
    store.write(LANE, VIDEO, Step(step), first as i64, &rows).unwrap();
}

/// Who had written each row after so many steps.
fn writers(steps: u64) -> BTreeMap<usize, u64> {
    let mut last = BTreeMap::new();
    for step in 0..steps {
        let (first, count) = window(step);
        last.extend((first..first + count).map(|position| (position, step)));
    }
    last
}

/// Each row is whole, at least as new as after `flushed` steps, and of one of the first `begun` steps that wrote it.
fn check(folder: &Path, flushed: u64, begun: u64) {
    let store = open(folder);
    let window = store.read(LANE, VIDEO, 0, ROWS).unwrap();
    assert_eq!(window.damaged, 0);
    let durable = writers(flushed);
    for (position, state) in window.state.iter().enumerate() {
        let found = &window.values[position * CHANNELS..][..CHANNELS];
        match state {
            RowState::Remembered { written } => {
                assert!(written.0 < begun && durable.get(&position).is_none_or(|step| *step <= written.0));
                assert_eq!(found, values(position, written.0), "row {position} of {written}");
            }
            RowState::Absent => assert!(!durable.contains_key(&position), "row {position} is gone"),
            RowState::Outside => panic!("row {position} is inside the video"),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The folder as it is after a flush and some writes that were not: what a power cut then would leave.
#[test]
fn a_copy_between_any_two_operations_opens_to_old_or_new_rows() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    // No commit but by flushing, so that the ledger's thread is idle whenever the folder is copied.
    let (mut store, _) = MemoryStore::open_with(&live, CHANNELS, MemoryDtype::F32, usize::MAX).unwrap();
    store.add_lane(LANE, &[(VIDEO, ROWS)]).unwrap();
    let mut rng = Key::root(5).rng();
    let mut flushed = 0;
    for step in 0..60 {
        write(&mut store, step);
        if rng.random_range(0..4) == 0 {
            store.flush().unwrap();
            flushed = step + 1;
        }
        if rng.random_range(0..3) == 0 {
            let crashed = folder.path().join(format!("crashed-{step}"));
            copy(&live, &crashed);
            check(&crashed, flushed, step + 1);
        }
    }
}

/// The child of the next test: writes until it is killed.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    let mut store = open(Path::new(&folder));
    for step in 0..1_000_000 {
        println!("begun {step}");
        write(&mut store, step);
        if step % 7 == 6 {
            store.flush().unwrap();
            println!("flushed {step}");
        }
    }
}

#[test]
fn a_killed_process_leaves_old_or_new_rows() {
    let mut rng = Key::root(9).rng();
    for _ in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "model::memory::crash_tests::child_that_writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines_to_live = rng.random_range(5..150);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (mut begun, mut flushed, mut seen) = (0, 0, 0);
        let mut line = String::new();
        while output.read_line(&mut line).unwrap() > 0 {
            match line.trim_end().split_once(' ') {
                Some(("begun", step)) => begun = step.parse::<u64>().unwrap() + 1,
                Some(("flushed", step)) => flushed = step.parse::<u64>().unwrap() + 1,
                _ => {}
            }
            line.clear();
            seen += 1;
            // After that the rest of what it had printed is read until its end.
            if seen == lines_to_live {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(begun > 0, "the child wrote nothing");
        check(folder.path(), flushed, begun);
    }
}
