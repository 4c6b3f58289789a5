//! What schedulers and terminals send: to the run, to its workers, to all at once.

use std::time::Instant;

use longtake_shared::config::ClusterConfig;
use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};

use crate::lab::Lab;

/// Training that is over in seconds, and long enough to be signalled.
const SHORT: &str = "train tiny.toml --set train.validate_every=0 --set train.epochs=20";

#[test]
fn signals_to_workers_do_not_disturb_their_run() {
    let lab = Lab::new();
    let mut running = lab.start(SHORT);
    lab.wait_for_step(&mut running, "pretrain", 1);
    let workers = lab.workers();
    assert_eq!(workers.len(), 2);
    for step in 1..=3 {
        lab.wait_for_step(&mut running, "train", step);
        assert!(!running.has_ended());
        for worker in &workers {
            for signal in [Signal::TERM, Signal::USR1, Signal::INT] {
                kill_process(worker.pid, signal).unwrap();
            }
        }
    }
    let said = running.end();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("generation g1: 2 workers") && !said.stderr.contains("goes on"), "{said:?}");
    assert_eq!(lab.progress().len(), lab.steps().len(), "no step is done twice");
    assert_eq!(lab.newest().step.0, 40);
}

#[test]
fn a_warning_of_a_scheduler_saves_within_the_grace_and_the_run_can_go_on() {
    let lab = Lab::new();
    let mut running = lab.start(SHORT);
    lab.wait_for_step(&mut running, "train", 2);
    // What `tiny.toml` leaves as it is.
    let grace = ClusterConfig::default().stop_grace.0;
    let asked = Instant::now();
    running.signal(Signal::USR1);
    let said = running.end();
    let took = asked.elapsed().as_secs_f64();
    assert_eq!(said.code, Some(75), "{said:?}");
    assert!(took < grace, "it took {took:.1} s of {grace} s");
    let saved = lab.newest().step;
    let resumed = lab.run("train --resume runs/tiny");
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!((2..40).contains(&saved.0) && lab.newest().step.0 == 40, "it was saved at {saved}");
    assert_eq!(lab.progress().len(), lab.steps().len(), "no step is done twice");
}

#[test]
fn one_interrupt_of_a_terminal_reaches_the_run_once_and_saves() {
    let lab = Lab::new();
    let mut running = lab.start_as_group(SHORT);
    lab.wait_for_step(&mut running, "pretrain", 1);
    for worker in lab.workers() {
        assert_eq!(getpgid(Some(worker.pid)).unwrap(), worker.pid, "a worker leads a group of its own");
    }
    lab.wait_for_step(&mut running, "train", 2);
    let group = Pid::from_raw(running.pid().cast_signed()).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
    let said = running.end();
    assert_eq!(said.code, Some(75), "{said:?}");
    assert!(lab.newest().step.0 >= 2);
}

#[test]
fn a_terminal_that_is_closed_stops_a_run_in_order_unless_it_was_started_with_nohup() {
    let lab = Lab::new();
    let mut running = lab.start(SHORT);
    lab.wait_for_step(&mut running, "train", 2);
    running.signal(Signal::HUP);
    let said = running.end();
    assert_eq!(said.code, Some(75), "{said:?}");
    assert!(said.stderr.contains("stopped and saved after step "), "{said:?}");
    let saved = lab.newest().step.0;
    assert!((2..40).contains(&saved), "it was saved at {saved}");

    let mut running = lab.start_with_nohup("train --resume runs/tiny");
    lab.wait_for_step(&mut running, "train", saved + 1);
    running.signal(Signal::HUP);
    lab.wait_for_step(&mut running, "train", 40);
    let said = running.end();
    assert_eq!(said.code, Some(0), "{said:?}");
}
