//! A coordinator and agents as processes of their own, each in its place, and how far their run is.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab::{Lab, Process, Running, until};

/// Training that nobody waits for to end by itself, on as many videos as six lanes need.
pub(crate) const LONG: &str = "--set train.epochs=100000 --set train.validate_every=0 --set pretrain.steps=0 \
     --set cluster.lease=1 --set cluster.recovery=fast --set checkpoint.interval=2 --set memory.replicas=1";

/// A run whose roles are processes of their own.
pub(crate) struct Cluster {
    pub(crate) lab: Lab,
    pub(crate) coordinator: Option<Running>,
    pub(crate) agents: Vec<Option<Running>>,
    words: String,
    slots: usize,
}

impl Cluster {
    /// Starts a coordinator and as many agents, and waits until they train.
    pub(crate) fn start(agents: usize, slots: usize, words: &str) -> Self {
        let lab = Lab::new();
        let coordinator = lab.start(&format!("coordinator tiny.toml {LONG} {words}"));
        let mut cluster =
            Self { lab, coordinator: Some(coordinator), agents: Vec::new(), words: words.to_owned(), slots };
        for _ in 0..agents {
            cluster.add_agent();
        }
        cluster.wait_for_steps(3);
        cluster
    }

    pub(crate) fn add_agent(&mut self) {
        self.agents.push(None);
        self.start_agent(self.agents.len() - 1);
    }

    pub(crate) fn start_agent(&mut self, number: usize) {
        let words = format!("agent --run runs/tiny --slots {} --threads 1", self.slots);
        self.agents[number] = Some(self.lab.start(&words));
    }

    pub(crate) fn start_coordinator(&mut self) {
        let words = format!("coordinator --resume runs/tiny --allow-different-config {}", self.words);
        self.coordinator = Some(self.lab.start(&words));
    }

    pub(crate) fn kill_coordinator(&mut self) {
        if let Some(coordinator) = self.coordinator.take() {
            coordinator.signal(Signal::KILL);
            coordinator.end();
        }
    }

    pub(crate) fn kill_agent(&mut self, number: usize) {
        if let Some(agent) = self.agents[number].take() {
            agent.signal(Signal::KILL);
            agent.end();
        }
    }

    /// What `longtake status` says; nothing while no coordinator answers.
    pub(crate) fn status(&self) -> Option<Value> {
        let said = self.lab.run("status runs/tiny --json");
        (said.code == Some(0)).then(|| serde_json::from_str(&said.stdout).unwrap())
    }

    /// Steps that were told, counted over all of them: a step that is done again counts again.
    pub(crate) fn steps(&self) -> usize {
        self.lab.progress().iter().filter(|((stage, _), _)| stage == "train").count()
    }

    /// Waits for so many steps more; gives how long it took.
    pub(crate) fn wait_for_steps(&mut self, more: usize) -> Duration {
        let (begun, before) = (Instant::now(), self.steps());
        until("the next steps", || {
            if let Some(coordinator) = &mut self.coordinator {
                assert!(!coordinator.has_ended(), "the run has ended");
            }
            (self.steps() >= before + more).then_some(())
        });
        begun.elapsed()
    }

    /// Processes of the workers that are members now, by rank.
    pub(crate) fn members(&self) -> Vec<Process> {
        until("the members", || {
            let status = self.status()?;
            let mut members: Vec<(u64, i64)> = status["workers"]
                .as_array()?
                .iter()
                .filter_map(|worker| Some((worker["rank"].as_u64()?, worker["pid"].as_i64()?)))
                .collect();
            members.sort_unstable();
            // One that has just ended is about to be told.
            members.into_iter().map(|(_, pid)| Process::of(pid)).collect()
        })
    }

    /// Waits until that many workers train together.
    pub(crate) fn wait_for_world(&mut self, world: usize) {
        until("the world", || {
            let status = self.status()?;
            let trains = status["phase"] == "training";
            let ranks = status["workers"].as_array()?.iter().filter(|worker| worker["rank"].is_u64()).count();
            (trains && ranks == world).then_some(())
        });
    }

    /// Stops the run and sees that everybody leaves with the same code.
    pub(crate) fn stop(mut self) {
        let members = self.members();
        let said = self.lab.run("stop runs/tiny");
        assert_eq!(said.code, Some(0), "{said:?}");
        let processes =
            self.coordinator.take().into_iter().chain(self.agents.iter_mut().filter_map(Option::take));
        for process in processes {
            let said = process.end();
            assert_eq!(said.code, Some(75), "{said:?}");
        }
        assert!(members.iter().all(|member| member.ends_within(Duration::from_secs(5))));
        let said = self.lab.run("checkpoint verify runs/tiny");
        assert_eq!(said.code, Some(0), "{said:?}");
    }
}

pub(crate) fn send(pid: Pid, signal: Signal) {
    // It may have ended by itself.
    let _ = kill_process(pid, signal);
}
