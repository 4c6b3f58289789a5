//! Random histories of a small cluster: workers that answer, die, hang and say things twice, agents that vanish and come back,
//! coordinators that start anew. The engine alone, without driver and network; its invariants hold after every event, and once
//! faults stop, the run gets on.
//!
//! A history is its seed. A failing one says it; `LONGTAKE_HISTORY=<seed>` plays it alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use longtake_coordinator::run::command::Command;
use longtake_coordinator::run::event::{Event, StopSource};
use longtake_coordinator::run::record::Record;
use longtake_coordinator::run::{Orphan, RunEngine, Settings};
use longtake_coordinator::updates::Outcome;
use longtake_shared::config::Recovery;
use longtake_shared::ids::{AgentId, Epoch, Generation, Incarnation, LaneId, RunId, Step, WorkerId};
use longtake_shared::protocol::stamp::StepPhase;
use longtake_shared::protocol::{
    Doing, ExitCause, FailureScope, Formation, HeldWorker, Identity, Kept, Order, Progress, SavedParts,
    SavedStage, Stage, WorkerEnd, WorkerHello, WorkerReport,
};
use longtake_shared::units::Seconds;

use crate::scheduler::Dice;

/// Histories of one test run; nightly more.
const HISTORIES: u64 = 50_000;

/// At most one run in so many may run out of patience.
const GIVES_UP_ONE_IN: u64 = 50;

fn ring(index: u32) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 4000 + index as u16))
}

fn hello(index: u32) -> WorkerHello {
    WorkerHello { index, pid: 1, ring_address: ring(index) }
}

fn progress(done: u64) -> WorkerReport {
    WorkerReport::Progress(Progress {
        stage: Stage::Train,
        done,
        total: 10,
        epoch: Epoch(0),
        loss: Some(1.0),
        numbers: BTreeMap::new(),
        elapsed: Seconds(1.0),
    })
}

/// A worker process as it really is.
#[derive(Clone)]
struct Process {
    agent: AgentId,
    index: usize,
    place: Option<Identity>,
    trains: bool,
    leaves: bool,
    /// It has left its generation, and does nothing before the next.
    left: bool,
    step: u64,
    lanes: Vec<LaneId>,
}

/// What is really there, beside the engine that only hears of it.
struct World {
    dice: Dice,
    engine: RunEngine,
    now: Duration,
    processes: BTreeMap<WorkerId, Process>,
    /// Events on their way.
    mail: Vec<Event>,
    journaled: Generation,
    orphan: Option<Orphan>,
    /// Trained steps of the newest generation.
    step: u64,
    over: bool,
    /// It is, because patience was used up.
    gave_up: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let workers = 1 + dice.below(4);
        let settings = Settings {
            workers,
            fewest: 1 + dice.below(workers),
            spares: dice.below(2),
            recovery: if dice.one_in(2) { Recovery::Exact } else { Recovery::Fast },
            run: RunId("r".into()),
            lanes: 4,
            lease: Duration::from_secs(1),
            gather_timeout: Duration::from_mins(1),
            coordinator_grace: Duration::from_secs(20),
            phase_deadline: Duration::from_secs(30),
            stop_grace: Duration::from_secs(15),
            started_from: None,
        };
        let engine = RunEngine::new(settings, Incarnation(1), Generation(8), Duration::ZERO);
        let mut world = Self {
            dice,
            engine,
            now: Duration::ZERO,
            processes: BTreeMap::new(),
            mail: Vec::new(),
            journaled: Generation(8),
            orphan: None,
            step: 0,
            over: false,
            gave_up: false,
        };
        for agent in 0..2 {
            world.agent_comes(agent);
        }
        world
    }

    fn agent(number: usize) -> AgentId {
        AgentId(format!("a{number}"))
    }

    fn agent_comes(&mut self, number: usize) {
        let agent = Self::agent(number);
        let held = self.processes.iter().filter(|(_, process)| process.agent == agent);
        let held = held.map(|(worker, process)| HeldWorker {
            worker: worker.clone(),
            index: process.index as u32,
            hello: Some(hello(process.index as u32)),
        });
        let event = Event::AgentConnected {
            agent: agent.clone(),
            host: "n".into(),
            slots: 3,
            held: held.collect(),
            ended: vec![],
        };
        self.give(event);
    }

    fn give(&mut self, event: Event) {
        if self.over {
            return;
        }
        for command in self.engine.handle(self.now, event) {
            self.carry_out(command);
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Journal(Record::Generation { team, indices }) => {
                assert!(team.generation > self.journaled, "generations rise, over all coordinators");
                self.journaled = team.generation;
                self.orphan = Some(Orphan { team, indices });
            }
            Command::StartWorker { agent, worker, index } => {
                let process = Process {
                    agent,
                    index,
                    place: None,
                    trains: false,
                    leaves: false,
                    left: false,
                    step: 0,
                    lanes: vec![],
                };
                self.processes.insert(worker.clone(), process);
                self.mail.push(Event::WorkerJoined { worker, ring_address: ring(index as u32), pid: 1 });
            }
            Command::Tell { generation, workers, order } => {
                for worker in workers {
                    self.obey(&worker, generation, &order);
                }
            }
            Command::CommitCheckpoint(request) => {
                let (stage, step) = (request.stage, request.step);
                self.mail.push(Event::Committed { stage, step, sequence: 1 });
            }
            Command::FindCheckpoint => {
                let found = (self.step > 0).then_some((SavedStage::Train, Step(self.step / 2)));
                self.mail.push(Event::CheckpointFound { found, passed_over: vec![] });
            }
            Command::KillWorker { worker, .. } => self.dies(&worker, ExitCause::Signal(9)),
            Command::KillWorkers => {
                for worker in self.processes.keys().cloned().collect::<Vec<_>>() {
                    self.dies(&worker, ExitCause::Signal(9));
                }
            }
            Command::Finish(outcome) => {
                self.over = true;
                self.gave_up = matches!(outcome, Outcome::Failed { .. });
            }
            Command::Journal(_) | Command::Announce(_) | Command::ComputeReport { .. } => {}
        }
    }

    fn obey(&mut self, id: &WorkerId, generation: Generation, order: &Order) {
        let incarnation = self.engine.state().incarnation;
        let team = self.engine.state().phase.team().cloned();
        let Some(process) = self.processes.get_mut(id) else { return };
        let newer = process.place.as_ref().is_some_and(|place| place.generation > generation);
        let Some(place) = process.place.clone().filter(|_| !matches!(order, Order::Form(_))) else {
            let rank = team.and_then(|team| team.rank(id));
            if let (Order::Form(Formation { lanes, .. }), Some(rank), false) = (order, rank, newer) {
                assert_eq!(generation, self.journaled, "a generation is durable before it is announced");
                let run = RunId("r".into());
                process.place = Some(Identity { run, incarnation, generation, rank });
                (process.trains, process.leaves, process.left) = (false, false, false);
                process.lanes.clone_from(&lanes[rank.index()]);
                self.says(id, WorkerReport::Ready);
            } else if matches!(order, Order::Shutdown) {
                self.dies(id, ExitCause::Code(0));
            }
            return;
        };
        if newer {
            return;
        }
        match order {
            Order::Train => process.trains = place.generation == generation && !process.left,
            Order::Abort { .. } if place.generation == generation => self.leaves(id),
            Order::SetFlags(flags) => process.leaves = flags.reconfigure,
            Order::Adopted => {
                let again = if process.trains { WorkerReport::Ready } else { self.leaving(id) };
                self.says(id, again);
            }
            Order::Shutdown => self.dies(id, ExitCause::Code(0)),
            _ => {}
        }
    }

    fn leaving(&self, id: &WorkerId) -> WorkerReport {
        let process = &self.processes[id];
        let kept = Kept {
            stage: SavedStage::Train,
            step: Step(process.step),
            lanes: process.lanes.clone(),
            copies: vec![],
        };
        WorkerReport::Left { kept: Some(kept) }
    }

    fn leaves(&mut self, id: &WorkerId) {
        if let Some(process) = self.processes.get_mut(id) {
            (process.trains, process.left) = (false, true);
        }
        let report = self.leaving(id);
        self.says(id, report);
    }

    fn says(&mut self, id: &WorkerId, report: WorkerReport) {
        if let Some(identity) = self.processes.get(id).and_then(|process| process.place.clone()) {
            self.mail.push(Event::FromWorker { worker: id.clone(), identity, report });
        }
    }

    fn dies(&mut self, id: &WorkerId, cause: ExitCause) {
        if self.processes.remove(id).is_some() {
            let (worker, log, last) = (id.clone(), vec![], None);
            self.mail.push(Event::WorkerExited(WorkerEnd { worker, cause, log, last }));
        }
    }

    /// All members of a generation that trains take a step, or leave where all were asked to.
    fn step(&mut self) {
        let Some(team) = self.engine.state().phase.team().cloned() else { return };
        let steps = |id: &WorkerId| {
            self.processes.get(id).is_some_and(|process| {
                let here = process.place.as_ref().is_some_and(|place| place.generation == team.generation);
                here && process.trains
            })
        };
        if !team.members.iter().all(steps) {
            return;
        }
        if team.members.iter().all(|id| self.processes[id].leaves) {
            for id in &team.members {
                self.leaves(id);
            }
            return;
        }
        self.step += 1;
        for id in &team.members {
            if let Some(process) = self.processes.get_mut(id) {
                process.step = self.step;
            }
        }
        self.says(&team.members[0], progress(self.step));
        if self.dice.one_in(3) {
            for id in &team.members {
                let (stage, step, average_map) = (SavedStage::Train, Step(self.step), None);
                let parts = serde_json::Value::Null;
                self.says(id, WorkerReport::PartsSaved(SavedParts { stage, step, average_map, parts }));
            }
        }
    }

    fn somebody(&mut self) -> Option<WorkerId> {
        let place = self.dice.below(self.processes.len());
        self.processes.keys().nth(place).cloned()
    }

    fn deliver(&mut self) {
        if !self.mail.is_empty() {
            let place = self.dice.below(self.mail.len());
            let event = self.mail.swap_remove(place);
            self.give(event);
        }
    }

    /// The oldest first, as links give it.
    fn deliver_all(&mut self) {
        while !self.mail.is_empty() && !self.over {
            let event = self.mail.remove(0);
            self.give(event);
        }
    }

    fn tick(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.give(Event::Tick);
    }

    fn renew(&mut self, number: usize) {
        let doing = Doing { step: Step(self.step), phase: StepPhase::Look, since: Seconds(0.1) };
        let agent = Self::agent(number);
        let workers = self.processes.iter().filter(|(_, process)| process.agent == agent);
        let doing = workers.map(|(id, _)| (id.clone(), doing)).collect();
        self.give(Event::AgentRenewed { agent, doing });
    }

    fn restart(&mut self) {
        let settings = self.engine.settings().clone();
        let incarnation = self.engine.state().incarnation.next();
        self.engine = match self.orphan.clone() {
            Some(orphan) => RunEngine::adopting(settings, incarnation, orphan, self.now),
            None => RunEngine::new(settings, incarnation, self.journaled, self.now),
        };
        self.mail.clear();
        for agent in 0..2 {
            self.agent_comes(agent);
        }
    }

    fn fault(&mut self) {
        match self.dice.below(15) {
            0 | 1 => {
                if let Some(worker) = self.somebody() {
                    self.dies(&worker, ExitCause::Signal(9));
                }
            }
            2 => {
                let number = self.dice.below(2);
                self.give(Event::AgentDisconnected { agent: Self::agent(number) });
            }
            3 | 4 => {
                let number = self.dice.below(2);
                self.agent_comes(number);
            }
            5 => {
                if let Some(event) = self.mail.last().cloned() {
                    self.mail.push(event);
                }
            }
            6 => {
                // The committer is no link: it always answers.
                if !matches!(self.mail.last(), Some(Event::Committed { .. } | Event::CheckpointFound { .. }))
                {
                    self.mail.pop();
                }
            }
            7 => {
                if let Some(worker) = self.somebody() {
                    let doing = Doing { step: Step(1), phase: StepPhase::Data, since: Seconds(9.0) };
                    self.give(Event::WorkerHung { worker, doing, deadline: Seconds(2.0), log: vec![] });
                }
            }
            8 => {
                if let Some(worker) = self.somebody() {
                    self.says(&worker, WorkerReport::CollectiveFailed { message: "c".into() });
                }
            }
            14 => {
                if let Some(worker) = self.somebody() {
                    let (message, hint, log) = ("damaged".into(), None, vec![]);
                    let scope = FailureScope::Checkpoint;
                    self.says(&worker, WorkerReport::Failed { message, hint, scope, log });
                    self.dies(&worker, ExitCause::Code(1));
                }
            }
            9 => self.restart(),
            10 => self.give(Event::CheckpointWanted),
            11 => self.tick(700),
            12 if self.dice.one_in(10) => self.give(Event::Stop(StopSource::Scheduler)),
            _ => self.tick(1500),
        }
    }

    /// One thing happens.
    fn turn(&mut self) {
        match self.dice.below(8) {
            0 => self.tick(100),
            1 => {
                let number = self.dice.below(2);
                self.renew(number);
            }
            2 => self.step(),
            3 => self.fault(),
            4 => self.deliver_all(),
            _ => self.deliver(),
        }
    }

    /// Nothing fails any more: the run ends, or takes new steps.
    fn gets_on(&mut self) -> bool {
        for agent in 0..2 {
            self.agent_comes(agent);
        }
        let mut steps = 0;
        for _ in 0..300 {
            self.tick(200);
            for agent in 0..2 {
                self.renew(agent);
            }
            self.deliver_all();
            let before = self.step;
            self.step();
            self.deliver_all();
            steps += self.step - before;
            let stops = self.engine.state().requests.flags.stop;
            if self.over || (steps >= 3 && !stops) {
                return true;
            }
        }
        false
    }
}

/// Plays a history; gives whether the run has failed.
fn play(seed: u64) -> bool {
    let mut world = World::new(seed);
    for _ in 0..10 + world.dice.below(30) {
        world.turn();
    }
    let kind = world.engine.state().phase.kind();
    assert!(world.gets_on(), "the run stands still, from {kind:?}: {:?}", world.engine.state().phase);
    world.gave_up
}

#[test]
fn invariants_hold_in_every_history_and_every_run_gets_on_once_faults_stop() {
    let variable = |name: &str| std::env::var(name).ok();
    if let Some(seed) = variable("LONGTAKE_HISTORY").and_then(|seed| seed.parse().ok()) {
        assert!(!play(seed), "the run gave up");
        return;
    }
    let count = if variable("LONGTAKE_NIGHTLY").is_some() { 1_000_000 } else { HISTORIES };
    let begun = Instant::now();
    let gave_up = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let gave_up = &gave_up;
            scope.spawn(move || {
                for seed in (0..count).filter(|seed| seed % threads == thread) {
                    match std::panic::catch_unwind(|| play(seed)) {
                        Ok(failed) => drop(gave_up.fetch_add(u64::from(failed), Ordering::Relaxed)),
                        Err(panic) => {
                            eprintln!("play it alone with LONGTAKE_HISTORY={seed}");
                            std::panic::resume_unwind(panic);
                        }
                    }
                }
            });
        }
    });
    let gave_up = gave_up.into_inner();
    eprintln!("{count} histories, {gave_up} gave up, in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(gave_up * GIVES_UP_ONE_IN <= count, "{gave_up} of {count} runs gave up");
}
