//! Machines that do not reach each other: network namespaces joined by a bridge, whose ends are taken down.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cluster::LONG;
use crate::lab::{Lab, Running, until};

/// Namespaces of one test, gone with it.
struct Network {
    name: String,
    nodes: usize,
}

fn ip(words: &str) -> bool {
    let status = Command::new("ip").args(words.split_whitespace()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Network {
    /// Nothing where this process may not make one.
    fn make(nodes: usize) -> Option<Self> {
        let name = format!("lt{}", std::process::id());
        let network = Self { name: name.clone(), nodes };
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
                format!("-n {space} addr add 10.77.{}.{}/16 dev eth0", std::process::id() % 250, node + 1),
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

    fn address(node: usize) -> String {
        format!("10.77.{}.{}", std::process::id() % 250, node + 1)
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
        let listen = Network::address(0);
        let command = format!(
            "coordinator tiny.toml {LONG} --set synth.training_videos=6 --set train.lanes=6 \
             --set cluster.coordinator_grace=6 --set cluster.listen={listen}:0 --set cluster.workers={} {words}",
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
        self.lab.progress().iter().filter(|((stage, _), _)| stage == "train").count()
    }

    fn wait_for_steps(&mut self, more: usize) {
        let before = self.steps();
        until("the next steps", || {
            assert!(!self.coordinator.has_ended(), "the run has ended");
            (self.steps() >= before + more).then_some(())
        });
    }

    fn generation(&self) -> u64 {
        let said = self.lab.run_in(&self.network.space(0), "status runs/tiny --json");
        let status: serde_json::Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        status["generation"].as_u64().unwrap_or_default()
    }

    /// The chain holds no step of a generation twice, and its generations never fall.
    fn stop(self) {
        let said = self.lab.run_in(&self.network.space(0), "stop runs/tiny");
        assert_eq!(said.code, Some(0), "{said:?}");
        let said = self.coordinator.end();
        assert_eq!(said.code, Some(75), "{said:?}");
        drop(self.agents);
        let listed = self.lab.run("checkpoint list runs/tiny --json");
        assert_eq!(listed.code, Some(0), "{listed:?}");
        let said = self.lab.run("checkpoint verify runs/tiny");
        assert_eq!(said.code, Some(0), "{said:?}");
    }
}

#[test]
fn a_node_that_is_cut_off_is_lost_and_the_others_go_on() {
    let Some(mut split) = Split::start("--set cluster.min_workers=2") else { return };
    split.network.cut(3);
    split.wait_for_steps(3);
    split.network.join(3);
    split.wait_for_steps(3);
    split.stop();
}

#[test]
fn of_two_halves_only_the_one_with_the_coordinator_makes_progress() {
    let Some(mut split) = Split::start("--set cluster.min_workers=2") else { return };
    let before = split.generation();
    split.network.cut(2);
    split.network.cut(3);
    split.wait_for_steps(5);
    assert!(split.generation() > before, "the half forms a generation of its own");
    split.network.join(2);
    split.network.join(3);
    split.wait_for_steps(5);
    split.stop();
}

#[test]
fn workers_train_on_while_their_coordinator_is_cut_off_and_no_step_is_lost() {
    let Some(mut split) = Split::start_from(1, "") else { return };
    let before = split.generation();
    split.network.cut(0);
    // The length of the outage, which is what is tested: three leases, half of the grace.
    std::thread::sleep(Duration::from_secs(3));
    let heard = split.steps();
    split.network.join(0);
    split.wait_for_steps(5);
    assert_eq!(split.generation(), before, "the same generation trains on");
    let mut steps: Vec<u64> = split.lab.progress().into_iter().map(|((_, done), _)| done).collect();
    steps.sort_unstable();
    steps.dedup();
    assert_eq!(steps.len() as u64, *steps.last().unwrap(), "every step was told");
    assert!(
        steps.len() > heard + 10,
        "they trained on meanwhile: {heard} steps were told, then {}",
        steps.len()
    );
    split.stop();
}

#[test]
fn a_flapping_link_costs_no_generation() {
    // A link that comes up again asks anew who is where, which takes a second by itself.
    let Some(mut split) = Split::start("--set cluster.lease=3") else { return };
    let before = split.generation();
    for _ in 0..crate::rounds(3, 20) {
        split.network.cut(2);
        // The length of a flap, which is what is tested: a fifth of the lease.
        std::thread::sleep(Duration::from_millis(200));
        split.network.join(2);
        split.wait_for_steps(2);
    }
    assert_eq!(split.generation(), before);
    split.stop();
}
