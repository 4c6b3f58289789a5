//! Nodes that come late, stand by, or are gone for a while.

use rustix::process::Pid;

use crate::cluster::{Cluster, strike};
use crate::is_nightly;
use crate::lab::until;

#[test]
fn a_spare_takes_the_place_of_a_lost_node() {
    let mut cluster = Cluster::start(3, 1, "--set cluster.spares=1");
    strike(&mut cluster, "node lost beside a spare", |cluster, round| {
        cluster.wait_for_world(2);
        let processes = until("the spare", || Some(cluster.processes()).filter(|all| all.len() == 3));
        let (generation, members) = (cluster.generation(), cluster.pids());
        // With its node, so that no process can be started in its place before the others have left.
        let victim = members[round % 2];
        let node = cluster.agent_of(victim);
        cluster.kill_agent(node);
        cluster.wait_for_generation(generation + 1);
        cluster.wait_for_world(2);
        assert_eq!(cluster.generation(), generation + 1, "no generation was formed without the spare");
        let now = cluster.pids();
        let stood_by = |pid: &Pid| processes.contains(pid) && *pid != victim;
        assert!(now.iter().all(stood_by), "{now:?} train, and before there were {processes:?}");
        cluster.start_agent(node);
    });
    cluster.stop();
}

#[test]
fn a_node_that_comes_later_joins_and_no_step_is_lost_or_done_twice() {
    let mut cluster = Cluster::start(1, 1, "--set cluster.min_workers=1");
    cluster.agents.push(None);
    strike(&mut cluster, "node added", |cluster, _| {
        cluster.wait_for_world(1);
        let (generation, told) = (cluster.generation(), cluster.told());
        cluster.start_agent(1);
        cluster.wait_for_world(2);
        assert_eq!(cluster.generation(), generation + 1, "it joins at once");
        cluster.wait_for_steps(3);
        let since: Vec<u64> = cluster.told()[told.len() - 1..].to_vec();
        let expected: Vec<u64> = (since[0]..).take(since.len()).collect();
        assert_eq!(since, expected, "each step once, in order");
        cluster.kill_agent(1);
    });
    cluster.stop();
}

#[test]
fn a_run_that_needs_a_node_waits_for_it_and_says_which_worker_is_missing() {
    let mut cluster = Cluster::start(2, 1, "");
    // Every ten seconds it says so: in CI once, at night again.
    let notices = if is_nightly() { 2 } else { 1 };
    strike(&mut cluster, "needed node gone", |cluster, round| {
        cluster.wait_for_world(2);
        let node = round % 2;
        let lost = cluster.index_of_agent(node);
        let heard = cluster.notices().len();
        cluster.kill_agent(node);
        until("the wait", || {
            let status = cluster.status()?;
            let waits = status["waiting_for"]["workers_missing"]["needed"] == 2;
            (waits && status["missing"] == serde_json::json!([lost])).then_some(())
        });
        let steps = cluster.told();
        if round == 0 {
            let told = until("who is missing", || {
                Some(cluster.notices().split_off(heard)).filter(|told| told.len() >= notices)
            });
            for notice in told {
                assert_eq!(notice["missing"], serde_json::json!([lost]), "{notice}");
                assert_eq!((notice["present"].as_u64(), notice["needed"].as_u64()), (Some(1), Some(2)));
            }
        }
        assert_eq!(cluster.told(), steps, "nobody trains alone");
        cluster.start_agent(node);
        cluster.wait_for_world(2);
    });
    let said = cluster.stop();
    assert!(said.stderr.contains("waiting for workers: 1 of 2 are there; missing: worker "), "{said:?}");
}
