//! Connections that break while everybody lives: of the ring between two workers, and of an agent to its coordinator.

use std::process::Command;

use rustix::process::Pid;

use crate::cluster::{Cluster, strike};
use crate::lab::until;

/// An established connection of a process, as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Connection {
    local: String,
    remote: String,
}

fn ss(words: &[&str]) -> Option<String> {
    let said = Command::new("ss").args(words).output().ok()?;
    said.status.success().then(|| String::from_utf8_lossy(&said.stdout).into_owned())
}

/// Nothing where nobody tells whose connections there are.
fn connections(pid: Pid) -> Option<Vec<Connection>> {
    let listed = ss(&["-Htnp", "state", "established"])?;
    let owner = format!("pid={},", pid.as_raw_nonzero());
    let connection = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Connection { local: words[2].to_owned(), remote: words[3].to_owned() }
    };
    Some(listed.lines().filter(|line| line.contains(&owner)).map(connection).collect())
}

/// Ends these for both sides; whether the kernel did.
fn cut(connections: &[Connection]) -> bool {
    let killed = |connection: &Connection| {
        let Connection { local, remote } = connection;
        ss(&["-K", "-Htn", "state", "established", "src", local, "dst", remote])
            .is_some_and(|killed| killed.contains(local))
    };
    connections.iter().filter(|connection| killed(connection)).count() > 0
}

/// Cuts all connections of a process; nothing, and told so, where this kernel does not.
fn cut_all(pid: Pid) -> Option<Vec<Connection>> {
    let open = connections(pid).filter(|open| cut(open));
    if open.is_none() {
        eprintln!("SKIPPED: this process may not end others' connections, so none was lost");
    }
    open
}

#[test]
fn workers_that_lose_their_ring_form_another() {
    let mut cluster = Cluster::start(2, 1, "--set cluster.min_workers=1");
    strike(&mut cluster, "ring lost", |cluster, round| {
        cluster.wait_for_world(2);
        let (generation, members) = (cluster.generation(), cluster.pids());
        // A worker talks to its agent through a Unix socket: all its connections are those of the ring.
        if cut_all(cluster.members()[round % 2].pid).is_none() {
            return;
        }
        cluster.wait_for_generation(generation + 1);
        cluster.wait_for_world(2);
        assert_eq!(cluster.pids(), members, "the same processes form the next generation");
    });
    cluster.stop();
}

#[test]
fn an_agent_that_loses_its_coordinator_calls_again_and_no_generation_is_lost() {
    // Half a lease is given to come back: more than a busy machine takes.
    let mut cluster = Cluster::start(2, 1, "--set cluster.min_workers=1 --set cluster.lease=4");
    let generation = cluster.generation();
    strike(&mut cluster, "agent's link lost", |cluster, round| {
        cluster.wait_for_world(2);
        let members = cluster.pids();
        let agent = cluster.agents[round % 2].as_ref().unwrap();
        let agent = Pid::from_raw(agent.pid().cast_signed()).unwrap();
        let Some(lost) = cut_all(agent) else { return };
        until("another connection", || {
            let open = connections(agent)?;
            (!open.is_empty() && open.iter().all(|open| !lost.contains(open))).then_some(())
        });
        cluster.wait_for_steps(3);
        cluster.wait_for_world(2);
        assert_eq!(cluster.pids(), members, "the same processes train on");
        assert_eq!(cluster.generation(), generation);
    });
    cluster.check_that_every_step_was_told();
    cluster.stop();
}
