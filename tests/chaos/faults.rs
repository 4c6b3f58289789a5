//! Each fault, again and again: noticed, survived, and the run goes on.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rustix::process::Signal;

use crate::cluster::{Cluster, send};
use crate::{numbers, rounds};

/// Strikes, and tells how long it took until the next step was told.
fn strike(cluster: &mut Cluster, name: &str, mut fault: impl FnMut(&mut Cluster, usize)) {
    let mut times = Vec::new();
    for round in 0..rounds(2, 20) {
        let begun = Instant::now();
        fault(cluster, round);
        cluster.wait_for_steps(3);
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    eprintln!("{name}: {} times, median {median:.2?}, longest {most:.2?}", times.len());
}

#[test]
fn killed_workers_are_survived() {
    let mut numbers = numbers();
    let mut cluster = Cluster::start(2, 1, "--set cluster.min_workers=1");
    strike(&mut cluster, "worker killed", |cluster, _| {
        cluster.wait_for_world(2);
        let members = cluster.members();
        let victim = &members[numbers.random_range(0..members.len())];
        send(victim.pid, Signal::KILL);
        assert!(victim.ends_within(Duration::from_secs(5)));
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
        assert!(victim.ends_within(Duration::from_secs(20)), "a worker that hangs is killed");
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
fn a_killed_coordinator_costs_no_step() {
    let mut cluster = Cluster::start(2, 1, "");
    let generation = |cluster: &Cluster| cluster.status().map(|status| status["generation"].clone());
    let first = generation(&cluster);
    strike(&mut cluster, "coordinator killed", |cluster, _| {
        let members: Vec<_> = cluster.members().iter().map(|member| member.pid).collect();
        cluster.kill_coordinator();
        cluster.start_coordinator();
        cluster.wait_for_world(2);
        let now: Vec<_> = cluster.members().iter().map(|member| member.pid).collect();
        assert_eq!(now, members, "the same processes train on");
    });
    assert_eq!(generation(&cluster), first, "no generation was lost");
    let steps: Vec<u64> = cluster.lab.progress().into_iter().map(|((_, done), _)| done).collect();
    let mut distinct = steps.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), *distinct.last().unwrap() as usize, "every step was told, none was lost");
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
