//! Workers and coordinators that die, and people who lose patience.

use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::lab::Lab;

/// Training that nobody waits for to end by itself.
const LONG: &str = "train tiny.toml --set train.epochs=100000 --set train.validate_every=0";

#[test]
fn a_killed_worker_is_told_and_replaced_and_the_run_comes_to_its_end() {
    let lab = Lab::new();
    let mut running = lab.start("train tiny.toml --set train.validate_every=0 --set train.epochs=20");
    lab.wait_for_step(&mut running, "pretrain", 1);
    let workers = lab.workers();
    lab.wait_for_step(&mut running, "train", 5);
    kill_process(workers[1].pid, Signal::KILL).unwrap();
    let said = running.end();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("worker 1 (rank 1) was killed by signal 9"), "{said:?}");
    assert!(said.stderr.contains("generation g2 goes on with 2 workers after step "), "{said:?}");
    assert!(workers.iter().all(|worker| worker.ends_within(Duration::from_secs(2))));
    assert_eq!(lab.newest().step.0, 40);
}

#[test]
fn workers_do_not_outlive_a_killed_coordinator() {
    let lab = Lab::new();
    let mut running = lab.start(LONG);
    lab.wait_for_step(&mut running, "train", 2);
    let workers = lab.workers();
    assert_eq!(workers.len(), 2);
    running.signal(Signal::KILL);
    assert!(workers.iter().all(|worker| worker.ends_within(Duration::from_secs(2))));
    assert_eq!(running.end().code, None);
}

#[test]
fn a_second_interrupt_kills_at_once() {
    let lab = Lab::new();
    let mut running = lab.start(LONG);
    lab.wait_for_step(&mut running, "train", 2);
    let workers = lab.workers();
    // A worker that does not answer: the first interrupt alone would wait for it.
    kill_process(workers[0].pid, Signal::STOP).unwrap();
    running.signal(Signal::INT);
    crate::lab::until("the wish to stop", || {
        lab.run("status runs/tiny").stdout.contains("stopping").then_some(())
    });
    assert!(!running.has_ended());
    running.signal(Signal::INT);
    let said = running.end();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("killed by a second Ctrl-C"), "{said:?}");
    assert!(workers.iter().all(|worker| worker.ends_within(Duration::from_secs(2))));
}

#[test]
fn a_running_run_tells_its_status_and_its_folder_is_taken() {
    let lab = Lab::new();
    let mut running = lab.start(LONG);
    lab.wait_for_step(&mut running, "train", 2);
    let settings = std::fs::read(lab.path("runs/tiny/config.json")).unwrap();

    let status = lab.run("status runs/tiny");
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(status.stdout.starts_with("run tiny: training for "), "{status:?}");
    assert!(status.stdout.contains("\ntrain: ") && status.stdout.contains("rank 1"), "{status:?}");

    let taken = lab.run("train --resume runs/tiny --set checkpoint.keep=7");
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(taken.stderr.contains("runs/tiny` is in use by process "), "{taken:?}");
    assert!(taken.stderr.contains("stop that run with `longtake stop`"), "{taken:?}");
    assert_eq!(std::fs::read(lab.path("runs/tiny/config.json")).unwrap(), settings);

    assert_eq!(lab.run("stop runs/tiny").code, Some(0));
    assert_eq!(running.end().code, Some(75));
    let over = lab.run("status runs/tiny");
    assert_eq!(over.code, Some(1), "{over:?}");
    assert!(
        over.stderr.contains("the run in `runs/tiny` is not running: it was stopped after step "),
        "{over:?}"
    );
}

#[test]
fn steps_that_are_not_finite_end_the_run_for_good_in_both_stages() {
    for (stage, more) in [
        ("pretrain.optim", "--set pretrain.steps=100"),
        ("optim", "--set pretrain.steps=0 --set train.epochs=100"),
    ] {
        let lab = Lab::new();
        let said = lab.run(&format!(
            "train tiny.toml --set {stage}.learning_rate=1e30 --set {stage}.clip_norm=0 \
             --set {stage}.schedule.warmup_steps=0 --set train.max_non_finite=3 --set train.validate_every=0 {more}"
        ));
        assert_eq!(said.code, Some(78), "{said:?}");
        assert!(
            said.stderr.contains("loss or gradient were not finite in 3 steps in a row, up to step "),
            "{said:?}"
        );
        assert!(said.stderr.contains(&format!("hint: lower `{stage}.learning_rate`")), "{said:?}");
    }
}
