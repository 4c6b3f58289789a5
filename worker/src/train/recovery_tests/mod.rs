//! No failure loses a run: whoever comes, goes or stops in the middle, the run is what it would have been.

mod crew;
mod damage;
mod memory;

use std::collections::{BTreeMap, BTreeSet};

use longtake_shared::config::{MemoryInit, RunConfig};
use longtake_shared::ids::{LaneId, Rank, Step};

use crew::{Crew, Held, Numbers, Videos};

use super::tests::{config, difference};
use crate::collective::{Fault, FaultKind};
use crate::control::Flags;
use crate::tensors::{TensorData, TensorFile};

const GO_ON: Flags = Flags { stop: false, checkpoint: false, reconfigure: false };
const LEAVE: Flags = Flags { reconfigure: true, ..GO_ON };

/// What the members of a run whose members never change hold in the end.
fn undisturbed(videos: &Videos, world: u32, change: impl FnOnce(&mut RunConfig)) -> BTreeMap<u32, Held> {
    undisturbed_with_numbers(videos, world, change).0
}

/// The same, with the numbers of its steps.
fn undisturbed_with_numbers(
    videos: &Videos,
    world: u32,
    change: impl FnOnce(&mut RunConfig),
) -> (BTreeMap<u32, Held>, Numbers) {
    let mut crew = Crew::new(videos, config(), change);
    let members: Vec<u32> = (0..world).collect();
    crew.form(&members, 0, false);
    crew.train(GO_ON);
    crew.until_finished();
    (crew.end(), crew.numbers)
}

/// Memory that begins without rows: extraction would leave off at the first wish to leave.
fn absent_at_first(config: &mut RunConfig) {
    config.memory.init = MemoryInit::Absent;
}

/// What the steps of two runs must have in common to the bit, whoever their members were.
fn assert_same_steps(found: &Numbers, expected: &Numbers) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (step, numbers) in expected {
        for name in ["samples", "sample_ids", "positives", "absent_rows", "damaged_rows", "mean_age"] {
            assert_eq!(found[step].get(name), numbers.get(name), "{name} of step {step}");
        }
    }
}

/// The memory of all workers.
fn rows(held: &BTreeMap<u32, Held>) -> BTreeMap<(LaneId, u32), Vec<u8>> {
    held.values().flat_map(|held| held.rows.clone()).collect()
}

/// Writers and absences of a video's rows, and their values.
fn decoded(segment: &[u8]) -> (Vec<i64>, Vec<f32>) {
    let (mut written, mut values) = (Vec::new(), Vec::new());
    for tensor in TensorFile::decode(segment).unwrap().tensors {
        match tensor.data {
            TensorData::I64(steps) => written = steps,
            TensorData::F32(rows) => values = rows,
            other => panic!("{} values of another type", other.len()),
        }
    }
    (written, values)
}

fn assert_same_within_rounding(found: &BTreeMap<u32, Held>, expected: &BTreeMap<u32, Held>) {
    let reference = &expected[&0];
    for held in found.values() {
        assert_eq!(held.step, reference.step);
        let worst = difference(&held.tensors, &reference.tensors);
        assert!(worst < 5e-3, "parameters and statistics differ by {worst}");
    }
    let (found, expected) = (rows(found), rows(expected));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (place, segment) in found {
        let ((written, values), (of_reference, reference)) = (decoded(&segment), decoded(&expected[&place]));
        assert_eq!(written, of_reference, "writers and absences of {place:?}");
        let worst = values.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-2, "rows of {place:?} differ by {worst}");
    }
}

#[test]
fn members_come_and_go_and_the_run_is_the_same() {
    let videos = Videos::make();
    let change = |config: &mut RunConfig| {
        absent_at_first(config);
        config.memory.replicas = 1;
    };
    let (expected, numbers) = undisturbed_with_numbers(&videos, 1, change);
    let mut crew = Crew::new(&videos, config(), change);
    crew.form(&[0, 1, 2, 3], 0, false);
    crew.train(LEAVE);
    crew.until_left();
    let mut steps = 1;
    for members in [&[0, 1, 2][..], &[0, 1, 2, 3], &[3, 1], &[5, 3, 0, 1, 4, 2]] {
        crew.form(members, 1, true);
        crew.train(if members.len() < 6 { LEAVE } else { GO_ON });
        if members.len() < 6 {
            crew.until_left();
            steps += 1;
            assert!(
                crew.left.values().flatten().all(|kept| kept.step == Step(steps)),
                "one step a generation"
            );
        }
    }
    crew.until_finished();
    let found = crew.end();
    assert_eq!(found.len(), 6);
    assert_same_within_rounding(&found, &expected);
    assert_same_steps(&crew.numbers, &numbers);
    // Who goes takes its lanes along: worker 3 one at first, workers 0 and 2 three in the end. All of it was copied.
    assert_eq!(crew.warnings.len(), 4, "{:?}", crew.warnings);
    assert!(crew.warnings.iter().all(|warning| warning.contains("was lost with its worker")));
}

#[test]
fn lanes_change_hands_bit_for_bit() {
    let videos = Videos::make();
    let expected = undisturbed(&videos, 2, absent_at_first);
    let mut crew = Crew::new(&videos, config(), absent_at_first);
    crew.form(&[0, 1], 0, false);
    crew.train(LEAVE);
    crew.until_left();
    // All lanes change hands, and until the generation trains both have them.
    crew.form(&[0, 1], 1, true);
    crew.until_ready();
    crew.abort();
    let both = crew.left.values().map(|kept| kept.as_ref().unwrap().lanes.len()).collect::<Vec<_>>();
    assert_eq!(both, [6, 6]);
    // Sums of two addends do not depend on who brings which, so the run has the bits of the other.
    crew.form(&[0, 1], 1, true);
    crew.train(GO_ON);
    crew.until_finished();
    let found = crew.end();
    assert!(found[&0].tensors == expected[&0].tensors && found[&1].tensors == expected[&0].tensors);
    assert!(rows(&found) == rows(&expected));
    assert!(
        found[&0].rows.keys().all(|(lane, _)| lane.0 % 2 == 1),
        "who gave its lanes away has dropped them"
    );
}

#[test]
fn wherever_a_call_fails_the_members_go_on_from_what_they_hold() {
    let replicas = |config: &mut RunConfig| {
        config.memory.replicas = 1;
        config.train.max_steps = 3;
    };
    let videos = Videos::make();
    let expected = undisturbed(&videos, 2, replicas);
    let (mut laggards, mut failures) = (0, 0);
    for kind in [FaultKind::Fail, FaultKind::Lose] {
        for call in 0.. {
            let mut crew = Crew::new(&videos, config(), replicas);
            crew.inject(&[0, 1], Fault { rank: Rank(1), call, kind });
            crew.form(&[0, 1], 0, false);
            crew.until_ready_or_failed();
            let trains = !crew.has_failed();
            if trains {
                crew.train(GO_ON);
            }
            if !crew.until_failed_or_finished() {
                assert!(call > 30, "a run of three steps has more calls than {call}");
                break;
            }
            failures += 1;
            if trains {
                // An abort at once could stop the other before it takes in the result that it has.
                crew.until_all_stand();
            }
            crew.abort();
            let steps: Vec<Step> = crew.left.values().flatten().map(|kept| kept.step).collect();
            laggards += usize::from(steps.len() == 2 && steps[0] != steps[1]);
            crew.form(&[0, 1], 0, crew.left.values().any(Option::is_some));
            crew.train(GO_ON);
            crew.until_finished();
            let found = crew.end();
            assert!(found == expected, "{kind:?} in call {call} left a trace");
            let told: BTreeSet<u64> = crew.steps.iter().copied().collect();
            assert_eq!(told, BTreeSet::from([1, 2, 3]), "every step is told");
        }
    }
    assert!(
        failures > 60 && laggards >= 3,
        "{failures} failures, {laggards} of them left a rank a step behind"
    );
}

#[test]
fn a_run_that_returns_to_its_checkpoint_has_the_bits_of_one_that_never_stopped() {
    let videos = Videos::make();
    let expected = undisturbed(&videos, 2, |_| {});
    let mut crew = Crew::new(&videos, config(), |_| {});
    crew.form(&[0, 1], 0, false);
    crew.train(GO_ON);
    crew.until_committed(2);
    crew.until_step(5);
    crew.abort();
    let kept = crew.left.values().flatten().map(|kept| kept.step).max();
    assert!(kept >= Some(Step(5)));
    // Worker 1 is lost, and another takes its place.
    crew.dismiss(&[1]);
    crew.form(&[0, 7], 0, false);
    crew.train(GO_ON);
    crew.until_finished();
    let found = crew.end();
    assert!(found[&0] == expected[&0], "the survivor");
    assert!(found[&7] == expected[&1], "the one in the place of the lost");
    let left_behind = std::fs::read_dir(crew.run_folder().join("memory")).unwrap().count();
    assert_eq!(left_behind, 0, "stores go with their processes");
}

#[test]
fn a_lost_lane_comes_back_from_checkpoint_and_copies() {
    let videos = Videos::make();
    let change = |config: &mut RunConfig| {
        absent_at_first(config);
        config.memory.replicas = 1;
        config.checkpoint.every = 0;
    };
    let (expected, numbers) = undisturbed_with_numbers(&videos, 3, change);
    let mut crew = Crew::new(&videos, config(), change);
    // The first step is in a checkpoint. The second is copied when the third generation begins, the third when it is done.
    for generation in 0..3 {
        crew.form(&[0, 1, 2], 0, generation > 0);
        crew.train(Flags { checkpoint: generation == 0, ..LEAVE });
        crew.until_left();
    }
    assert_eq!(crew.newest.as_ref().map(|newest| newest.step), Some(Step(1)));
    assert!(crew.left.values().flatten().all(|kept| kept.step == Step(3) && kept.copies.len() == 2));
    crew.dismiss(&[1]);
    crew.form(&[0, 7, 2], 0, true);
    crew.train(GO_ON);
    crew.until_finished();
    let copies = crew.warnings.iter().filter(|warning| warning.contains("rows come from copies"));
    assert_eq!(copies.count(), 2, "{:?}", crew.warnings);
    let found = crew.end();
    for (index, lost) in [(0, 0), (7, 1), (2, 2)] {
        assert!(found[&index] == expected[&lost], "bits, writers and absences, as if nobody had been lost");
    }
    assert!(crew.numbers == numbers, "what is remembered is as old, and as little is absent");
}

#[test]
fn a_generation_that_ends_while_it_forms_is_left_and_another_forms() {
    let videos = Videos::make();
    let expected = undisturbed(&videos, 2, |_| {});
    let mut crew = Crew::new(&videos, config(), |_| {});
    // Whatever each has come to, and then where a peer never comes.
    crew.form(&[0, 1], 0, false);
    crew.abort();
    crew.deaf.insert(1);
    crew.form(&[0, 1], 0, false);
    crew.abort();
    assert_eq!(crew.left.keys().collect::<Vec<_>>(), [&0]);
    crew.deaf.clear();
    // A generation that a newer one replaces at once.
    crew.form(&[0, 1], 0, false);
    crew.form(&[0, 1], 0, false);
    crew.train(GO_ON);
    crew.until_finished();
    assert!(crew.end() == expected);
}

#[test]
fn a_steady_step_awaits_no_control_and_only_rank_0_says_a_word() {
    let videos = Videos::make();
    let mut crew = Crew::new(&videos, config(), |config| {
        config.checkpoint.every = 0;
        config.train.max_steps = 1000;
    });
    crew.form(&[0, 1], 0, false);
    crew.train(GO_ON);
    crew.until_step(2);
    let before = [crew.flight(0), crew.flight(1)];
    // What is told now may have been done before that; six steps that followed have been done when they are told.
    let reached = before.iter().filter_map(|flight| flight.records.last()).map(|record| record.step.0).max();
    crew.until_step(reached.unwrap() + 6);
    let after = [crew.flight(0), crew.flight(1)];
    for (before, after) in before.iter().zip(&after) {
        assert!(before.awaited >= 2, "it has waited for its orders to form and to train");
        assert_eq!(after.awaited, before.awaited, "it waited for control within a steady step");
    }
    assert!(after[0].said >= before[0].said + 5, "rank 0 tells its steps");
    assert_eq!(after[1].said, before[1].said, "the other has nothing to say");
    // A save is no steady step: its report is counted.
    crew.wish(Flags { checkpoint: true, ..GO_ON });
    crew.until_committed(1);
    assert!((0..2).zip(&after).all(|(rank, after)| crew.flight(rank).awaited > after.awaited));
    crew.abort();
    crew.end();
}
