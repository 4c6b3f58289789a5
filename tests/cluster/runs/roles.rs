//! A run whose coordinator and agents are processes of their own, and what recorders tell of a dead one.

use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{Lab, Running, until};

/// Training that nobody waits for to end by itself.
const LONG: &str = "--set train.epochs=100000 --set train.validate_every=0";

fn agents(lab: &Lab) -> [Running; 2] {
    ["agent --run runs/tiny --threads 1", "agent --run runs/tiny --threads 1"].map(|words| lab.start(words))
}

#[test]
fn a_run_of_two_agents_has_the_bits_of_a_run_of_one_process() {
    let alone = Lab::new();
    alone.train("");
    let lab = Lab::new();
    // Agents may come first: they call until somebody answers.
    let agents = agents(&lab);
    let coordinator = lab.start("coordinator tiny.toml");
    for agent in agents {
        let said = agent.end();
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    let said = coordinator.end();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(lab.steps(), alone.steps());
    assert_eq!(lab.parts(), alone.parts());
}

#[test]
fn a_stop_of_one_agent_stops_the_run_and_all_end_alike() {
    let lab = Lab::new();
    let mut coordinator = lab.start(&format!("coordinator tiny.toml {LONG}"));
    let agents = agents(&lab);
    lab.wait_for_step(&mut coordinator, "train", 2);
    let said = lab.run("status runs/tiny");
    assert_eq!(said.stdout.matches("  agent on ").count(), 2, "{said:?}");
    agents[1].signal(Signal::TERM);
    for process in agents.into_iter().chain([coordinator]) {
        let said = process.end();
        assert_eq!(said.code, Some(75), "{said:?}");
    }
}

#[test]
fn a_killed_agent_takes_its_workers_with_it() {
    let lab = Lab::new();
    let mut coordinator = lab.start(&format!("coordinator tiny.toml {LONG}"));
    let agent = lab.start("agent --run runs/tiny --slots 2");
    lab.wait_for_step(&mut coordinator, "train", 2);
    let workers = lab.workers();
    assert_eq!(workers.len(), 2);
    agent.signal(Signal::KILL);
    assert!(workers.iter().all(|worker| worker.ends_within(Duration::from_secs(2))));
}

#[test]
fn recorders_of_a_killed_run_tell_what_its_workers_did() {
    let lab = Lab::new();
    let mut running = lab.start(&format!("train tiny.toml {LONG}"));
    lab.wait_for_step(&mut running, "train", 3);
    running.signal(Signal::KILL);
    assert_eq!(running.end().code, None);
    let said = lab.run("flight runs/tiny --last 4096");
    assert_eq!(said.code, Some(0), "{said:?}");
    for phase in ["worker 0, process", "worker 1, process", "look", "judge", "reduce", "write_back"] {
        assert!(said.stdout.contains(phase), "{phase} is missing: {}", said.stdout);
    }
    let said = lab.run("flight runs/tiny --worker 1 --last 7 --json");
    let told: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let records = told["workers"][0]["records"].as_array().unwrap();
    assert_eq!((told["workers"].as_array().unwrap().len(), records.len()), (1, 7));
    assert!(records[6]["took"].is_null() && records[5]["took"].is_object(), "{records:?}");
    assert!(records[6]["step"].as_u64().unwrap() >= 3, "{records:?}");
}

#[test]
fn what_killed_agents_leave_in_the_temporary_folder_is_removed_by_the_next() {
    let lab = Lab::new();
    let mut running = lab.start(&format!("train tiny.toml {LONG}"));
    lab.wait_for_step(&mut running, "pretrain", 1);
    let socket = lab.worker_argument("--socket");
    assert!(socket.exists());
    running.signal(Signal::KILL);
    running.end();
    assert!(socket.exists(), "nobody was left to remove it");
    let next = lab.start("train --resume runs/tiny");
    until("the folder's end", || (!socket.exists()).then_some(()));
    drop(next);
}
