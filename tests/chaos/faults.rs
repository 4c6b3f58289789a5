//! Each fault, again and again: noticed, survived, and the run goes on.

use std::time::{Duration, Instant};

use longtake_shared::protocol::stamp::StepPhase;
use rand::RngExt as _;
use rustix::process::Signal;

use crate::cgroups::{Freezer, OutOfMemory};
use crate::cluster::{Cluster, flight, send, step_of, strike};
use crate::lab::until;
use crate::numbers;

/// What a strike waits for a process to die of.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn killed_workers_are_survived() {
    let mut numbers = numbers();
    let mut cluster = Cluster::start(2, 1, "--set cluster.min_workers=1");
    strike(&mut cluster, "worker killed", |cluster, _| {
        cluster.wait_for_world(2);
        let members = cluster.members();
        let victim = &members[numbers.random_range(0..members.len())];
        send(victim.pid, Signal::KILL);
        assert!(victim.ends_within(SOON));
    });
    cluster.stop();
}

#[test]
fn stopped_workers_are_noticed_and_replaced() {
    let mut cluster = Cluster::start(2, 1, "--set cluster.min_workers=1");
    strike(&mut cluster, "worker stopped", |cluster, round| {
        cluster.wait_for_world(2);
        let members = cluster.members();
        let victim = &members[round % members.len()];
        send(victim.pid, Signal::STOP);
        // After a lease of a second, and what a busy machine makes of it.
        assert!(victim.ends_within(SOON), "a worker that hangs is killed");
    });
    cluster.stop();
}

#[test]
fn lost_nodes_are_survived_and_new_ones_join() {
    let mut cluster = Cluster::start(2, 1, "--set cluster.min_workers=1");
    strike(&mut cluster, "node lost", |cluster, round| {
        cluster.wait_for_world(2);
        let node = round % 2;
        cluster.kill_agent(node);
        cluster.wait_for_world(1);
        cluster.start_agent(node);
    });
    cluster.wait_for_world(2);
    cluster.stop();
}

#[test]
fn workers_that_the_kernel_kills_for_memory_are_survived() {
    let mut cluster = Cluster::start(2, 1, "--set cluster.min_workers=1");
    strike(&mut cluster, "out of memory", |cluster, round| {
        cluster.wait_for_world(2);
        let members = cluster.members();
        let victim = &members[round % members.len()];
        let Some(starved) = OutOfMemory::of(victim.pid) else { return };
        until("the kernel's killer", || (starved.kills() > 0).then_some(()));
        assert!(victim.ends_within(SOON));
    });
    cluster.wait_for_world(2);
    cluster.stop();
}

/// Phases of which every step has one, so that a few steps teach how long they take.
const OF_EVERY_STEP: [StepPhase; 4] = [StepPhase::Look, StepPhase::Judge, StepPhase::Replay, StepPhase::Move];

#[test]
fn workers_that_live_and_are_stuck_in_a_phase_are_noticed_and_replaced() {
    let mut cluster = Cluster::start(2, 1, "--set cluster.min_workers=1");
    strike(&mut cluster, "training thread stuck", |cluster, round| {
        cluster.wait_for_world(2);
        cluster.wait_for_steps(8);
        let members = cluster.members();
        let victim = &members[round % members.len()];
        let heard = cluster.incidents().len();
        let Some(freezer) = Freezer::of(victim.pid) else { return };
        // Who waits for others is not to blame: frozen where it has work of its own.
        let (phase, alive) = until("a phase of its own", || {
            freezer.freeze();
            let flight = flight(&cluster.lab, victim.pid)?;
            let phase = flight.records.last()?.phase;
            if OF_EVERY_STEP.contains(&phase) {
                return Some((phase, flight.alive));
            }
            freezer.thaw();
            None
        });
        let frozen = Instant::now();
        until("a sign of life", || (flight(&cluster.lab, victim.pid)?.alive > alive).then_some(()));
        // Five times what the phase takes and a second, which is learned.
        assert!(victim.ends_within(2 * SOON), "a worker that is stuck is killed");
        eprintln!("stuck in {}, killed after {:.2?}", phase.name(), frozen.elapsed());
        let incident = until("what was noticed", || cluster.incidents().into_iter().nth(heard));
        assert!(incident["cause"].as_str().unwrap().contains(" hung: at most "), "{incident}");
        assert_eq!(incident["doing"]["phase"], phase.name(), "{incident}");
    });
    cluster.wait_for_world(2);
    cluster.stop();
}

#[test]
fn a_killed_coordinator_costs_no_step() {
    let mut cluster = Cluster::start(2, 1, "");
    let first = cluster.generation();
    strike(&mut cluster, "coordinator killed", |cluster, _| {
        let (members, incarnation) = (cluster.pids(), cluster.incarnation());
        cluster.kill_coordinator();
        cluster.start_coordinator();
        cluster.wait_for_world(2);
        assert_eq!(cluster.pids(), members, "the same processes train on");
        assert_eq!(cluster.incarnation(), incarnation + 1);
    });
    assert_eq!(cluster.generation(), first, "no generation was lost");
    cluster.check_that_every_step_was_told();
    cluster.stop();
}

#[test]
fn a_stopped_coordinator_keeps_its_place_and_costs_no_generation() {
    let mut cluster = Cluster::start(2, 1, "");
    let (generation, incarnation) = (cluster.generation(), cluster.incarnation());
    strike(&mut cluster, "coordinator stopped and continued", |cluster, _| {
        cluster.wait_for_world(2);
        let members = cluster.pids();
        cluster.coordinator.as_ref().unwrap().signal(Signal::STOP);
        let (stopped, step) = (Instant::now(), step_of(&cluster.lab, members[0]));
        let second = cluster.lab.run("coordinator --resume runs/tiny --allow-different-config");
        assert_eq!(second.code, Some(1), "{second:?}");
        assert!(second.stderr.contains("is in use by process "), "{second:?}");
        // Two leases long.
        until("steps without a coordinator", || {
            let trained = step_of(&cluster.lab, members[0]) > step + 10;
            (trained && stopped.elapsed() > Duration::from_secs(2)).then_some(())
        });
        cluster.coordinator.as_ref().unwrap().signal(Signal::CONT);
        cluster.wait_for_steps(3);
        cluster.wait_for_world(2);
        assert_eq!(cluster.pids(), members, "the same processes train on");
    });
    assert_eq!((cluster.generation(), cluster.incarnation()), (generation, incarnation));
    cluster.check_that_every_step_was_told();
    cluster.stop();
}

#[test]
fn a_frozen_agent_that_wakes_changes_nothing() {
    let mut cluster = Cluster::start(2, 1, "--set cluster.min_workers=1");
    strike(&mut cluster, "agent stopped and continued", |cluster, _| {
        cluster.wait_for_world(2);
        let agent = cluster.agents[1].as_ref().unwrap();
        agent.signal(Signal::STOP);
        cluster.wait_for_world(1);
        cluster.agents[1].as_ref().unwrap().signal(Signal::CONT);
        cluster.wait_for_world(2);
    });
    cluster.stop();
}
