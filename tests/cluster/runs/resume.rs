//! A run that is stopped and goes on is the run it would have been, bit for bit.

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use rustix::process::Signal;

use crate::lab::{Lab, numbers, until};

/// How a run is asked to stop.
#[derive(Debug, Clone, Copy)]
enum How {
    Interrupt,
    Terminate,
    User,
    Operator,
}

/// Each way at least once.
const STOPS: [How; 6] =
    [How::Interrupt, How::Terminate, How::User, How::Operator, How::Interrupt, How::Terminate];

/// Steps at most that a run is let do between two stops, so that all of them fit into it.
const STEPS_MOST: usize = 2;

#[test]
fn a_run_that_is_stopped_again_and_again_ends_with_the_same_bits() {
    let whole = Lab::new();
    whole.train("");
    let stopped = Lab::new();
    let mut numbers = numbers();
    let mut stops = STOPS;
    stops.shuffle(&mut numbers);
    let mut words = "train tiny.toml".to_owned();
    let mut preempted = 0;
    for how in stops {
        let told = stopped.progress().len() + numbers.random_range(1..=STEPS_MOST);
        let mut running = stopped.start(&words);
        "train --resume runs/tiny".clone_into(&mut words);
        until("the step to stop at", || {
            (stopped.progress().len() >= told || running.has_ended()).then_some(())
        });
        eprintln!("{how:?} after {:?}", stopped.progress().last().map(|(step, _)| step.clone()));
        match how {
            How::Interrupt if !running.has_ended() => running.signal(Signal::INT),
            How::Terminate if !running.has_ended() => running.signal(Signal::TERM),
            How::User if !running.has_ended() => running.signal(Signal::USR1),
            How::Operator => drop(stopped.run("stop runs/tiny")),
            _ => {}
        }
        let said = running.end();
        assert!(matches!(said.code, Some(0 | 75)), "{said:?}");
        preempted += u32::from(said.code == Some(75));
    }
    // A stop may come too late on a machine that was busy elsewhere, but not each time.
    assert!(preempted >= 3, "{preempted} stops");
    let last = stopped.run(&words);
    assert_eq!(last.code, Some(0), "{last:?}");

    assert_eq!(stopped.steps(), whole.steps());
    assert_eq!(whole.progress().len(), whole.steps().len());
    assert_eq!(stopped.validations(), whole.validations());
    assert_eq!(stopped.parts(), whole.parts());
    let weights = |lab: &Lab| std::fs::read(lab.path("runs/tiny/best.safetensors")).unwrap();
    assert!(weights(&stopped) == weights(&whole), "the best weights differ");
}

#[test]
fn a_run_whose_coordinator_is_killed_goes_on_from_its_newest_checkpoint() {
    let whole = Lab::new();
    whole.train("");
    let killed = Lab::new();
    let mut running = killed.start("train tiny.toml");
    until("the second checkpoint", || {
        let commits = std::fs::read_dir(killed.path("runs/tiny/checkpoints")).ok()?;
        (commits.count() >= 2 || running.has_ended()).then_some(())
    });
    drop(running);
    let said = killed.run("train --resume runs/tiny");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!((killed.steps(), killed.parts()), (whole.steps(), whole.parts()));
}

#[test]
fn the_losses_are_the_same_for_one_two_and_three_workers() {
    let runs: Vec<_> = (1..=3)
        .map(|workers| {
            let lab = Lab::new();
            lab.train(&format!("--set cluster.workers={workers}"));
            lab.steps()
        })
        .collect();
    let loss = |value: &serde_json::Value| value["loss"].as_f64().unwrap();
    for other in &runs[1..] {
        assert!(other.keys().eq(runs[0].keys()));
        for (step, value) in other {
            let (one, many) = (loss(&runs[0][step]), loss(value));
            assert!((one - many).abs() <= 1e-3 * one.abs(), "{step:?}: {one} and {many}");
        }
    }
}

#[test]
fn a_run_of_two_workers_goes_on_with_three() {
    let lab = Lab::new();
    let mut running = lab.start("train tiny.toml");
    lab.wait_for_step(&mut running, "train", 2);
    running.signal(Signal::INT);
    assert_eq!(running.end().code, Some(75));
    let said = lab.run("train --resume runs/tiny --set cluster.workers=3");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(lab.newest().world_size, 3);
    assert_eq!(lab.steps().keys().filter(|(stage, _)| stage == "train").count(), 10);
}
