//! A coordinator and agents as processes of their own, each in its place, and how far their run is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use longtake_shared::protocol::flight::{Flight, FlightLog};
use longtake_tests::Said;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab::{Lab, Process, Running, until};
use crate::rounds;

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
        report(&self.lab.run("status runs/tiny --json"))
    }

    fn number(&self, name: &str) -> u64 {
        until(name, || self.status()?[name].as_u64())
    }

    pub(crate) fn generation(&self) -> u64 {
        self.number("generation")
    }

    /// Which start of the coordinator this is.
    pub(crate) fn incarnation(&self) -> u64 {
        self.number("incarnation")
    }

    /// Steps that were told, in that order: a step that is told again is there again.
    pub(crate) fn told(&self) -> Vec<u64> {
        told(&self.lab)
    }

    /// How often steps were told.
    pub(crate) fn steps(&self) -> usize {
        self.told().len()
    }

    /// What the run said while it waited for workers.
    pub(crate) fn notices(&self) -> Vec<Value> {
        self.lab.metrics().into_iter().filter(|line| line["event"] == "waiting").collect()
    }

    /// What has ended generations so far.
    pub(crate) fn incidents(&self) -> Vec<Value> {
        incidents(&self.lab)
    }

    /// Every step up to the newest was told, and what was told again was the same.
    pub(crate) fn check_that_every_step_was_told(&self) {
        check_that_every_step_was_told(&self.lab);
    }

    /// Waits for so many steps more; gives how long it took.
    pub(crate) fn wait_for_steps(&mut self, more: usize) -> Duration {
        let (begun, before) = (Instant::now(), self.steps());
        until("the next steps", || {
            if let Some(over) = self.coordinator.take_if(Running::has_ended) {
                panic!("the run has ended: {:?}", over.end());
            }
            (self.steps() >= before + more).then_some(())
        });
        begun.elapsed()
    }

    /// Processes of the workers that are members now, by rank.
    pub(crate) fn members(&self) -> Vec<Process> {
        until("the members", || Some(members_of(&self.status()?)).filter(|members| !members.is_empty()))
    }

    /// The same by their numbers.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.members().iter().map(|member| member.pid).collect()
    }

    /// Processes of all workers that have connected, members or not, by index.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let status = self.status().unwrap_or_default();
        let workers = status["workers"].as_array().cloned().unwrap_or_default();
        let pid = |worker: &Value| Pid::from_raw(i32::try_from(worker["pid"].as_i64()?).unwrap());
        workers.iter().filter_map(pid).collect()
    }

    /// Which agent has started a process.
    pub(crate) fn agent_of(&self, pid: Pid) -> usize {
        let started_by = parent(u64::from(pid.as_raw_nonzero().get().cast_unsigned()));
        let agents = self.agents.iter().map(|agent| agent.as_ref().map(|agent| u64::from(agent.pid())));
        agents.into_iter().position(|agent| agent.is_some() && agent == started_by).unwrap()
    }

    /// Which worker of the run an agent's is, that has one.
    pub(crate) fn index_of_agent(&self, number: usize) -> u64 {
        let agent = self.agents[number].as_ref().unwrap().pid();
        until("the agent's worker", || {
            let status = self.status()?;
            let mut workers = status["workers"].as_array()?.iter();
            let of_agent =
                |worker: &Value| worker["pid"].as_u64().is_some_and(|pid| parent(pid) == Some(agent.into()));
            workers.find_map(|worker| of_agent(worker).then(|| worker["index"].as_u64())?)
        })
    }

    /// Waits until a generation of at least that number has formed.
    pub(crate) fn wait_for_generation(&self, generation: u64) {
        until("the generation", || (self.status()?["generation"].as_u64()? >= generation).then_some(()));
    }

    /// Waits until that many workers train together.
    pub(crate) fn wait_for_world(&mut self, world: usize) {
        until("the world", || (world_of(&self.status()?)? == world).then_some(()));
    }

    /// Stops the run and sees that everybody leaves with the same code. Gives what the coordinator has said.
    pub(crate) fn stop(mut self) -> Said {
        let members = self.members();
        let said = self.lab.run("stop runs/tiny");
        assert_eq!(said.code, Some(0), "{said:?}");
        let coordinator = self.coordinator.take().unwrap().end();
        assert_eq!(coordinator.code, Some(75), "{coordinator:?}");
        for agent in self.agents.iter_mut().filter_map(Option::take) {
            let said = agent.end();
            assert_eq!(said.code, Some(75), "{said:?}");
        }
        assert!(members.iter().all(|member| member.ends_within(Duration::from_secs(5))));
        check_chain(&self.lab);
        coordinator
    }
}

/// Strikes, and tells how long it took until the next steps were told.
pub(crate) fn strike(cluster: &mut Cluster, name: &str, mut fault: impl FnMut(&mut Cluster, usize)) {
    let mut times = Vec::new();
    for round in 0..rounds(2, 20) {
        let begun = Instant::now();
        fault(cluster, round);
        cluster.wait_for_steps(3);
        times.push(begun.elapsed());
    }
    tell(name, times);
}

/// How long something took each time.
pub(crate) fn tell(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    eprintln!("{name}: {} times, median {median:.2?}, longest {most:.2?}", times.len());
}

/// What a status report says; nothing where no coordinator has answered.
pub(crate) fn report(said: &Said) -> Option<Value> {
    (said.code == Some(0)).then(|| serde_json::from_str(&said.stdout).unwrap())
}

/// Processes of the members, by rank; nobody where one of them has just ended and is about to be told.
pub(crate) fn members_of(status: &Value) -> Vec<Process> {
    let workers = status["workers"].as_array().unwrap().iter();
    let mut members: Vec<(u64, i64)> =
        workers.filter_map(|worker| Some((worker["rank"].as_u64()?, worker["pid"].as_i64()?))).collect();
    members.sort_unstable();
    members.into_iter().map(|(_, pid)| Process::of(pid)).collect::<Option<_>>().unwrap_or_default()
}

/// Workers that train together; nothing while none do.
pub(crate) fn world_of(status: &Value) -> Option<usize> {
    let ranks = status["workers"].as_array()?.iter().filter(|worker| worker["rank"].is_u64()).count();
    (status["phase"] == "training").then_some(ranks)
}

/// Steps of the training stage that were told, in that order.
pub(crate) fn told(lab: &Lab) -> Vec<u64> {
    let progress = lab.progress().into_iter();
    progress.filter_map(|((stage, done), _)| (stage == "train").then_some(done)).collect()
}

/// What has ended generations of a run so far.
pub(crate) fn incidents(lab: &Lab) -> Vec<Value> {
    let metrics = lab.metrics().into_iter().filter(|line| line["event"] == "recovered");
    metrics.map(|mut line| line["incident"].take()).filter(|incident| !incident.is_null()).collect()
}

/// Every step up to the newest was told, and what was told again was the same.
pub(crate) fn check_that_every_step_was_told(lab: &Lab) {
    let mut distinct = BTreeMap::new();
    for (step, value) in lab.progress() {
        let first = distinct.entry(step.clone()).or_insert_with(|| value.clone());
        assert_eq!(*first, value, "{step:?} was done twice");
    }
    let steps: Vec<u64> = distinct.into_keys().map(|(_, done)| done).collect();
    let expected: Vec<u64> = (1..=steps.len() as u64).collect();
    assert_eq!(steps, expected, "each step was told");
}

/// The chain of a run that is over is whole: its places rise by one, no step is there twice, and generations never fall.
pub(crate) fn check_chain(lab: &Lab) {
    let chain = commits(lab);
    assert!(!chain.is_empty());
    for pair in chain.windows(2) {
        let number = |commit: &Value, name: &str| commit[name].as_u64().unwrap();
        let [before, after] = [&pair[0], &pair[1]];
        assert!(number(before, "sequence") < number(after, "sequence"), "{before} then {after}");
        for never_falls in ["incarnation", "generation"] {
            assert!(number(before, never_falls) <= number(after, never_falls), "{before} then {after}");
        }
    }
    let step = |commit: &Value| (commit["stage"].to_string(), commit["step"].as_u64().unwrap());
    let mut steps: Vec<_> = chain.iter().map(step).collect();
    steps.sort_unstable();
    let all = steps.len();
    steps.dedup();
    assert_eq!(steps.len(), all, "a step was committed twice: {chain:?}");
    let said = lab.run("checkpoint verify runs/tiny");
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// The checkpoints of a run, oldest first.
pub(crate) fn commits(lab: &Lab) -> Vec<Value> {
    let said = lab.run("checkpoint list runs/tiny --json");
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_str(&said.stdout).unwrap()
}

/// What a process that runs has recorded of its work last.
pub(crate) fn flight(lab: &Lab, pid: Pid) -> Option<Flight> {
    let rings = std::fs::read_dir(lab.path("runs/tiny/flight")).ok()?;
    let flights =
        rings.filter_map(|ring| FlightLog::open(&ring.ok()?.path()).and_then(|log| log.read()).ok());
    let number = pid.as_raw_nonzero().get().cast_unsigned();
    flights.into_iter().find(|flight| flight.pid == Some(number))
}

/// The newest step that a process has begun.
pub(crate) fn step_of(lab: &Lab, pid: Pid) -> u64 {
    let records = flight(lab, pid).map(|flight| flight.records).unwrap_or_default();
    records.iter().map(|record| record.step.0).max().unwrap_or_default()
}

/// The process that has started another one.
pub(crate) fn parent(pid: u64) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

pub(crate) fn send(pid: Pid, signal: Signal) {
    // It may have ended by itself.
    let _ = kill_process(pid, signal);
}
