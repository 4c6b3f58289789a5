//! Mode `exact`: a run that was struck is, bit for bit, the run that was not.

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use rustix::process::Signal;

use crate::cluster::send;
use crate::lab::Lab;
use crate::{numbers, rounds};

/// Long enough to be struck often, short enough for CI.
fn length() -> u64 {
    rounds(12, 60) as u64
}

#[test]
fn a_run_whose_workers_are_killed_at_random_ends_with_the_same_bits() {
    let words =
        format!("--set train.epochs={} --set checkpoint.every=1 --set train.validate_every=0", length());
    let whole = Lab::new();
    whole.train(&words);

    let mut numbers = numbers();
    let struck = Lab::new();
    let mut running = struck.start(&format!("train tiny.toml {words}"));
    let steps = whole.steps().len() as u64;
    let kills = rounds(4, 20) as u64;
    let mut killed = 0;
    for kill in 1..=kills {
        // One in each part of the run, so that the run comes further between two.
        let part = steps / (kills + 1);
        let at = kill * part + numbers.random_range(0..part.max(1));
        let (stage, step) = if at < 6 { ("pretrain", at.max(1)) } else { ("train", (at - 5).max(1)) };
        struck.wait_for_step(&mut running, stage, step);
        if running.has_ended() {
            break;
        }
        let members = struck.workers();
        let Some(victim) = members.choose(&mut numbers) else { continue };
        send(victim.pid, Signal::KILL);
        killed += 1;
    }
    let said = running.end();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(killed >= kills / 2, "{killed} of {kills} kills came before the end");
    eprintln!("{killed} workers killed in {steps} steps");
    assert_eq!(struck.steps(), whole.steps());
    assert_eq!(struck.parts(), whole.parts());
}

#[test]
fn a_worker_that_is_lost_after_the_newest_checkpoint_was_damaged_costs_no_bit() {
    const EVERY: u64 = 20;
    let words = format!("--set train.epochs=40 --set checkpoint.every={EVERY} --set train.validate_every=0");
    let whole = Lab::new();
    whole.train(&words);

    let struck = Lab::new();
    let mut running = struck.start(&format!("train tiny.toml {words}"));
    struck.wait_for_step(&mut running, "train", 2 * EVERY + 1);
    let members = struck.workers();
    let all = |signal| members.iter().for_each(|member| send(member.pid, signal));
    // Frozen where no save is on its way.
    crate::lab::until("a moment between two saves", || {
        all(Signal::STOP);
        let told = struck.steps().last_key_value().map_or(0, |((_, step), _)| *step);
        // The last one that was due is there, and the next is not due yet.
        let saved = struck.newest().step.0 == told - told % EVERY;
        let between = saved && (2..EVERY - 2).contains(&(told % EVERY));
        if !between {
            all(Signal::CONT);
        }
        between.then_some(())
    });
    let newest = struck.newest();
    let part = struck.path("runs/tiny").join(newest.model.object());
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    send(members[0].pid, Signal::KILL);
    send(members[1].pid, Signal::CONT);
    let said = running.end();
    assert_eq!(said.code, Some(0), "{said:?}");
    let told = format!("{}` does not match the hash that is its name", newest.model.object());
    assert!(said.stderr.contains(&told) && said.stderr.contains("is passed over"), "{said:?}");
    assert_eq!(struck.steps(), whole.steps());
    assert_eq!(struck.parts(), whole.parts());
    assert!(struck.path("runs/tiny/damaged").join(newest.model.hash.to_string()).is_file());
    let said = struck.run("checkpoint verify runs/tiny");
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn any_sequence_of_worlds_meets_the_same_samples() {
    let words = "--set synth.training_videos=6 --set train.lanes=6 --set train.epochs=40 --set pretrain.steps=0 \
         --set train.validate_every=0 --set checkpoint.every=1";
    let whole = Lab::fresh();
    whole.train(&format!("{words} --set cluster.workers=1"));

    let path = [4usize, 3, 4, 2, 6];
    let struck = Lab::fresh();
    let mut command = format!("train tiny.toml {words} --set cluster.workers={}", path[0]);
    for (place, world) in path.iter().enumerate() {
        let mut running = struck.start(&command);
        struck.wait_for_step(&mut running, "train", 6 * (place as u64 + 1));
        let last = place + 1 == path.len();
        if !last {
            running.signal(Signal::TERM);
        }
        let said = running.end();
        assert_eq!(said.code, Some(if last { 0 } else { 75 }), "world {world}: {said:?}");
        if let Some(next) = path.get(place + 1) {
            command = format!("train --resume runs/tiny --set cluster.workers={next}");
        }
    }
    let (one, many) = (whole.steps(), struck.steps());
    assert!(one.keys().eq(many.keys()));
    for (step, value) in &one {
        let other = &many[step];
        for number in ["samples", "positives"] {
            assert_eq!(value["numbers"][number], other["numbers"][number], "{step:?}");
        }
        let (loss, other) = (value["loss"].as_f64().unwrap(), other["loss"].as_f64().unwrap());
        // Sums over ranks are rounded in another order in another world; the bound is that of the suite of whole runs.
        assert!((loss - other).abs() <= 1e-3 * loss.abs(), "{step:?}: {loss} and {other}");
    }
}
