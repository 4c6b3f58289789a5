//! What is remembered after a loss: what the checkpoint holds, and nothing else; the rest is computed when a window needs it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use longtake_shared::ids::{LaneId, Step};

use super::crew::{Crew, Held, Numbers, Videos};
use super::{
    GO_ON, LEAVE, absent_at_first, assert_same_steps, assert_same_within_rounding, config,
    undisturbed_with_numbers,
};
use crate::control::Flags;

/// What happens to the memory of some workers after three steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// It goes with its workers, which others replace; no checkpoint holds any of it.
    Lost,
    /// The same, but the first step is in a checkpoint.
    Saved,
    /// The same, but the checkpoint's part of it is damaged.
    SavedAndDamaged,
    /// All its bytes change on the disk.
    Damaged,
    /// Its disk fails.
    Fails,
}

/// The run of which that is a part.
struct Struck {
    /// By rank.
    held: BTreeMap<u32, Held>,
    numbers: Numbers,
    warnings: Vec<String>,
    /// Rows that were damaged in stores.
    damaged: usize,
}

impl Struck {
    /// The sum of a number over some steps.
    fn sum(&self, name: &str, steps: &[u64]) -> f64 {
        steps.iter().map(|step| self.numbers[step][name]).sum()
    }

    fn warnings_with(&self, text: &str) -> usize {
        self.warnings.iter().filter(|warning| warning.contains(text)).count()
    }
}

fn settings(config: &mut longtake_shared::config::RunConfig) {
    absent_at_first(config);
    config.checkpoint.every = 0;
}

/// Three generations of one step each, the loss of these members' memory, and the rest of the run.
fn strike(videos: &Videos, world: u32, victims: &[u32], loss: Loss) -> Struck {
    let mut crew = Crew::new(videos, config(), settings);
    let members: Vec<u32> = (0..world).collect();
    let saves = matches!(loss, Loss::Saved | Loss::SavedAndDamaged);
    for generation in 0..3 {
        crew.form(&members, 0, generation > 0);
        crew.train(Flags { checkpoint: saves && generation == 0, ..LEAVE });
        crew.until_left();
    }
    assert!(crew.left.values().flatten().all(|kept| kept.step == Step(3)));
    assert_eq!(crew.newest.as_ref().map(|newest| newest.step), saves.then_some(Step(1)));
    let mut damaged = 0;
    match loss {
        Loss::Lost | Loss::Saved => drop(crew.dismiss(victims)),
        Loss::SavedAndDamaged => {
            crew.dismiss(victims);
            damage_segments(&crew, world, victims);
        }
        Loss::Damaged => damaged = victims.iter().map(|victim| damage_rows(&crew, *victim)).sum(),
        Loss::Fails => {
            for victim in victims {
                crew.operate(*victim, |worker| {
                    worker.worker_state.memory.as_ref().unwrap().store.fail("the disk is broken");
                });
            }
        }
    }
    let replaced = !matches!(loss, Loss::Damaged | Loss::Fails);
    let heir = |member: &u32| if replaced && victims.contains(member) { member + 100 } else { *member };
    let heirs: Vec<u32> = members.iter().map(heir).collect();
    crew.form(&heirs, 0, true);
    crew.train(GO_ON);
    crew.until_finished();
    let mut held = crew.end();
    let held = (0..world).map(|rank| (rank, held.remove(&heirs[rank as usize]).unwrap())).collect();
    Struck { held, numbers: crew.numbers, warnings: crew.warnings, damaged }
}

/// Turns over every bit of what a worker's store has on the disk; gives how many rows that were.
fn damage_rows(crew: &Crew, index: u32) -> usize {
    let folder = crew.run_folder().join("memory");
    crew.operate(index, move |worker| {
        let store = &worker.worker_state.memory.as_ref().unwrap().store;
        store.flush().unwrap();
        let of_worker = format!("worker{index}-");
        let slab = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .find(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&of_worker)));
        let slab = slab.unwrap().path().join("rows.slab");
        let bytes: Vec<u8> = fs::read(&slab).unwrap().into_iter().map(|byte| !byte).collect();
        assert!(!bytes.is_empty());
        fs::write(slab, bytes).unwrap();
        store.lanes().into_iter().map(|lane| store.count(lane).0).sum()
    })
}

/// Changes a byte of each part of the newest checkpoint that holds rows of these members' lanes.
fn damage_segments(crew: &Crew, world: u32, victims: &[u32]) {
    let manifest = crew.newest.as_ref().unwrap();
    let lanes: Vec<LaneId> = (0..crew.config.train.lanes as u32)
        .filter(|lane| victims.contains(&(lane % world)))
        .map(LaneId)
        .collect();
    assert_eq!(manifest.segments_of(&lanes).count(), lanes.len());
    for segment in manifest.segments_of(&lanes) {
        let part = find(&crew.run_folder(), &segment.part.hash.to_string()).unwrap();
        let mut bytes = fs::read(&part).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(part, bytes).unwrap();
    }
}

/// The file of that name somewhere below a folder.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find_map(|path| if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) })
}

/// The steps after the loss in which each video comes for the first time, and those in which it has been seen again.
const FIRST: [u64; 2] = [4, 5];
const LATER: [u64; 2] = [6, 7];

#[test]
fn what_is_lost_with_its_worker_is_computed_when_it_is_needed() {
    let videos = Videos::make();
    let (_, undisturbed) = undisturbed_with_numbers(&videos, 2, settings);
    let few = strike(&videos, 2, &[1], Loss::Lost);
    assert_eq!(
        few.warnings_with("was lost with its worker: 0 rows come from copies, 0 from the checkpoint"),
        3
    );
    let calm = |steps: &[u64]| -> f64 { steps.iter().map(|step| undisturbed[step]["absent_rows"]).sum() };
    assert!(few.sum("absent_rows", &FIRST) > calm(&FIRST), "{:?}", few.numbers);
    assert!(
        few.sum("absent_rows", &LATER) < few.sum("absent_rows", &FIRST),
        "what was computed is remembered"
    );
    for (step, numbers) in &few.numbers {
        assert!(numbers["loss"].is_finite() && numbers["sample_ids"] == undisturbed[step]["sample_ids"]);
    }
    // Half of the lanes are lost, whether one worker had them or three.
    let many = strike(&videos, 6, &[1, 3, 5], Loss::Lost);
    assert_same_within_rounding(&many.held, &few.held);
    assert_same_steps(&many.numbers, &few.numbers);
}

#[test]
fn a_checkpoint_gives_back_what_it_holds_and_where_it_is_damaged_nothing() {
    let videos = Videos::make();
    let lost = strike(&videos, 2, &[1], Loss::Lost);
    let saved = strike(&videos, 2, &[1], Loss::Saved);
    assert_eq!(
        saved.warnings_with("0 rows come from copies, 32 from the checkpoint of step 1"),
        3,
        "{:?}",
        saved.warnings
    );
    let absent = |run: &Struck| run.sum("absent_rows", &FIRST);
    assert!(absent(&saved) < absent(&lost), "{} and {}", absent(&saved), absent(&lost));
    // Rows of the first step are three steps old and more, and what is computed anew is not.
    assert!(saved.sum("mean_age", &FIRST) > lost.sum("mean_age", &FIRST));
    let damaged = strike(&videos, 2, &[1], Loss::SavedAndDamaged);
    assert_eq!(damaged.warnings_with("in the checkpoint of step 1 is lost: "), 3, "{:?}", damaged.warnings);
    assert!(damaged.held == lost.held && damaged.numbers == lost.numbers, "as if it had not been saved");
}

#[test]
fn a_store_that_fails_or_is_damaged_is_told_and_rebuilt() {
    let videos = Videos::make();
    let lost = strike(&videos, 2, &[1], Loss::Lost);
    let failed = strike(&videos, 2, &[1], Loss::Fails);
    assert_eq!(
        failed.warnings_with("the long memory of worker 1 is made anew: "),
        1,
        "{:?}",
        failed.warnings
    );
    assert!(
        failed.held == lost.held && failed.numbers == lost.numbers,
        "the run of one that lost its worker"
    );

    let damaged = strike(&videos, 2, &[1], Loss::Damaged);
    assert_eq!(damaged.warnings.len(), 1, "{:?}", damaged.warnings);
    assert!(damaged.warnings[0].contains("in the long memory of worker 1 (rank 1) are damaged"));
    assert!(damaged.held == lost.held, "damaged rows are absent, and what is computed anew is written back");
    let (mut numbers, mut counted) = (damaged.numbers, Vec::new());
    for step in numbers.values_mut() {
        counted.push(step.insert("damaged_rows".into(), 0.0).unwrap());
    }
    assert!(numbers == lost.numbers);
    assert!(counted[..3].iter().all(|rows| *rows == 0.0) && counted[3] > 0.0, "{counted:?}");
    let found = counted.iter().sum::<f64>();
    assert!(
        found <= damaged.damaged as f64,
        "{found} of {} rows: a row that is rebuilt is found once",
        damaged.damaged
    );
}

#[test]
fn extracted_rows_grow_older_by_a_step_a_step_until_they_are_replaced() {
    let videos = Videos::make();
    let (_, kept) = undisturbed_with_numbers(&videos, 2, |config| config.memory.write_back = false);
    let (_, replaced) = undisturbed_with_numbers(&videos, 1, |_| {});
    for (done, numbers) in &kept {
        assert_eq!(numbers["mean_age"], (done - 1) as f64);
        assert_eq!(numbers["absent_rows"], 0.0);
        assert!(replaced[done]["mean_age"] <= numbers["mean_age"]);
    }
    assert!(replaced[&7]["mean_age"] < 6.0 && replaced[&7]["mean_age"] > 0.0, "{:?}", replaced[&7]);
}
