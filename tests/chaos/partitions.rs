//! Machines that do not reach each other: network namespaces joined by a bridge, whose ends are taken down.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::Value;

use crate::cluster::{
    LONG, check_chain, check_that_every_step_was_told, commits, flight, incidents, parent, report, step_of,
    tell, told, world_of,
};
use crate::lab::{Lab, Running, until};
use crate::rounds;

/// Namespaces of one test, gone with it.
struct Network {
    name: String,
    /// What the addresses of its nodes begin with.
    subnet: String,
    nodes: usize,
}

fn ip(words: &str) -> bool {
    let status = Command::new("ip").args(words.split_whitespace()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Network {
    /// Nothing where this process may not make one.
    fn make(nodes: usize) -> Option<Self> {
        // Tests of one process, and other processes with these tests, may run beside this one.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let name = format!("lt{process}x{number}");
        let subnet = format!("10.{}.{}", 77 + number % 100, process % 250);
        let network = Self { name: name.clone(), subnet, nodes };
        if !ip(&format!("link add {name} type bridge")) || !ip(&format!("link set {name} up")) {
            return None;
        }
        for node in 0..nodes {
            let (space, outer) = (network.space(node), network.outer(node));
            let steps = [
                format!("netns add {space}"),
                format!("link add {outer} type veth peer name eth0 netns {space}"),
                format!("link set {outer} master {name}"),
                format!("link set {outer} up"),
                format!("-n {space} addr add {}/16 dev eth0", network.address(node)),
                format!("-n {space} link set eth0 up"),
                format!("-n {space} link set lo up"),
            ];
            if !steps.iter().all(|step| ip(step)) {
                return None;
            }
        }
        Some(network)
    }

    fn space(&self, node: usize) -> String {
        format!("{}n{node}", self.name)
    }

    fn outer(&self, node: usize) -> String {
        format!("{}v{node}", self.name)
    }

    fn address(&self, node: usize) -> String {
        format!("{}.{}", self.subnet, node + 1)
    }

    /// A silent cut: no reset, no answer.
    fn cut(&self, node: usize) {
        assert!(ip(&format!("link set {} down", self.outer(node))));
    }

    fn join(&self, node: usize) {
        assert!(ip(&format!("link set {} up", self.outer(node))));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            ip(&format!("netns del {}", self.space(node)));
        }
        ip(&format!("link del {}", self.name));
    }
}

/// A coordinator on node 0, and agents with one worker each on a node of their own; four nodes.
struct Split {
    network: Network,
    lab: Lab,
    coordinator: Running,
    agents: Vec<Running>,
}

impl Split {
    /// With an agent on each node.
    fn start(words: &str) -> Option<Self> {
        Self::start_from(0, words)
    }

    /// With agents on the nodes from that one on.
    fn start_from(first: usize, words: &str) -> Option<Self> {
        let Some(network) = Network::make(4) else {
            eprintln!("SKIPPED: this process may not make network namespaces, so no network was split");
            return None;
        };
        let lab = Lab::fresh();
        let listen = network.address(0);
        let command = format!(
            "coordinator tiny.toml {LONG} --set synth.training_videos=6 --set train.lanes=6 \
             --set checkpoint.keep=1000 --set cluster.coordinator_grace=6 --set cluster.listen={listen}:0 --set cluster.workers={} {words}",
            4 - first
        );
        let coordinator = lab.start_in(&network.space(0), &command);
        let agents = (first..4)
            .map(|node| lab.start_in(&network.space(node), "agent --run runs/tiny --slots 1 --threads 1"))
            .collect();
        let mut split = Self { network, lab, coordinator, agents };
        split.wait_for_steps(3);
        Some(split)
    }

    fn steps(&self) -> usize {
        told(&self.lab).len()
    }

    fn wait_for_steps(&mut self, more: usize) {
        let before = self.steps();
        until("the next steps", || {
            assert!(!self.coordinator.has_ended(), "the run has ended");
            (self.steps() >= before + more).then_some(())
        });
    }

    /// What the coordinator says on its own node.
    fn status(&self) -> Option<Value> {
        report(&self.lab.run_in(&self.network.space(0), "status runs/tiny --json"))
    }

    fn generation(&self) -> u64 {
        until("the generation", || self.status()?["generation"].as_u64())
    }

    fn wait_for_world(&self, world: usize) {
        until("the world", || (world_of(&self.status()?)? == world).then_some(()));
    }

    /// Processes of the members on these nodes. Every node has an agent.
    fn workers_of(&self, nodes: &[usize]) -> Vec<Pid> {
        let agents: Vec<u64> = nodes.iter().map(|node| self.agents[*node].pid().into()).collect();
        until("the nodes' workers", || {
            let status = self.status()?;
            let pids: Vec<u64> =
                status["workers"].as_array()?.iter().filter_map(|worker| worker["pid"].as_u64()).collect();
            let on_nodes = |pid: &u64| parent(*pid).is_some_and(|agent| agents.contains(&agent));
            let found: Vec<Pid> =
                pids.into_iter().filter(on_nodes).filter_map(|pid| Pid::from_raw(pid as i32)).collect();
            (found.len() == nodes.len()).then_some(found)
        })
    }

    /// How many agents belong to the run.
    fn agents(&self) -> usize {
        self.status().map_or(0, |status| status["agents"].as_array().map_or(0, Vec::len))
    }

    /// Ends the run; what it leaves behind is one chain.
    fn stop(self) {
        let said = self.lab.run_in(&self.network.space(0), "stop runs/tiny");
        assert_eq!(said.code, Some(0), "{said:?}");
        let said = self.coordinator.end();
        assert_eq!(said.code, Some(75), "{said:?}");
        drop(self.agents);
        check_chain(&self.lab);
    }
}

/// Cuts again and again, and tells how long each round took.
fn again(split: &mut Split, name: &str, mut round: impl FnMut(&mut Split)) {
    let mut times = Vec::new();
    for _ in 0..rounds(2, 20) {
        let begun = Instant::now();
        round(split);
        times.push(begun.elapsed());
    }
    tell(name, times);
}

#[test]
fn a_node_that_is_cut_off_is_lost_and_the_others_go_on() {
    let Some(mut split) = Split::start("--set cluster.min_workers=2") else { return };
    again(&mut split, "node cut off and back", |split| {
        split.wait_for_world(4);
        let before = split.generation();
        split.network.cut(3);
        split.wait_for_world(3);
        assert!(split.generation() > before, "the others form a generation of their own");
        assert_eq!(split.agents(), 3);
        split.wait_for_steps(3);
        split.network.join(3);
        // One worker a node: all nodes have a member.
        split.wait_for_world(4);
        assert_eq!(split.agents(), 4);
        split.wait_for_steps(3);
    });
    split.stop();
}

#[test]
fn of_two_halves_only_the_one_with_the_coordinator_makes_progress() {
    let Some(mut split) = Split::start("--set cluster.min_workers=2") else { return };
    again(&mut split, "network split and joined", |split| {
        split.wait_for_world(4);
        let before = split.generation();
        let away = split.workers_of(&[2, 3]);
        split.network.cut(2);
        split.network.cut(3);
        // Where each of them is: a step that all had begun may have its sums on one side only.
        let steps: Vec<u64> = away.iter().map(|pid| step_of(&split.lab, *pid)).collect();
        split.wait_for_world(2);
        let generation = split.generation();
        assert!(generation > before, "the half forms a generation of its own");
        let committed = commits(&split.lab).len();
        split.wait_for_steps(5);
        until("a checkpoint of the half", || (commits(&split.lab).len() > committed).then_some(()));
        for commit in &commits(&split.lab)[committed..] {
            assert_eq!(commit["generation"], generation, "only the live generation commits: {commit}");
        }
        for (pid, step) in away.iter().zip(steps) {
            let records = flight(&split.lab, *pid).unwrap().records;
            assert!(records.iter().all(|record| record.generation.0 <= before), "it formed none");
            assert!(step_of(&split.lab, *pid) <= step + 1, "who is cut off takes no step");
        }
        split.network.join(2);
        split.network.join(3);
        split.wait_for_world(4);
        split.wait_for_steps(5);
    });
    split.stop();
}

#[test]
fn workers_train_on_while_their_coordinator_is_cut_off_and_no_step_is_lost() {
    let Some(mut split) = Split::start_from(1, "") else { return };
    again(&mut split, "coordinator cut off and back", |split| {
        split.wait_for_world(3);
        let before = split.generation();
        let members = split.workers_of(&[0, 1, 2]);
        split.network.cut(0);
        // The length of the outage, which is what is tested: three leases, half of the grace.
        std::thread::sleep(Duration::from_secs(3));
        let heard = split.steps();
        split.network.join(0);
        split.wait_for_steps(5);
        split.wait_for_world(3);
        let now = split.steps();
        assert!(now > heard + 10, "they trained on meanwhile: {heard} steps were told, then {now}");
        assert_eq!(split.workers_of(&[0, 1, 2]), members, "the same processes train on");
        assert_eq!(split.generation(), before, "{:?}", incidents(&split.lab));
    });
    check_that_every_step_was_told(&split.lab);
    split.stop();
}

#[test]
fn a_flapping_link_costs_no_generation() {
    // A link that comes up again asks anew who is where, which takes a second by itself.
    let Some(mut split) = Split::start("--set cluster.lease=3") else { return };
    let before = split.generation();
    for _ in 0..rounds(3, 20) {
        split.network.cut(2);
        // The length of a flap, which is what is tested: a fifth of the lease.
        std::thread::sleep(Duration::from_millis(200));
        split.network.join(2);
        split.wait_for_steps(2);
    }
    assert_eq!(split.generation(), before);
    split.stop();
}
