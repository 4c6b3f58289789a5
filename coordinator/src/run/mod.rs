//! The protocol as a value: `(now, event) -> commands`. No I/O, no clock, no tokio, no tonic.
//!
//! ```text
//!  agents, workers,      +-----------+                     journal, agents,
//!  committer, reporter,  |           |                     committer, reporter,
//!  signals, clock  ----> |  driver   | ----> commands ---> whoever watches
//!                events  |  engine   |
//!                        +-----------+
//!
//!  Gathering --quorum--> Forming --all ready--> Training --all finished--> Ending --all gone--> Finished
//!      |                    |                      |                         ^
//!      +--------------------+----------------------+--a worker is lost, stop-+
//! ```
//!
//! Decisions ([`crate::run::quorum`], [`crate::run::assignment`], [`crate::run::commit`], [`crate::run::recovery`], leases in [`crate::run::membership`]) are pure functions that return
//! their reason. [`crate::run::invariants`] hold after every event.

pub mod assignment;
pub mod command;
pub mod commit;
pub mod event;
pub mod invariants;
pub mod membership;
pub mod phase;
pub mod quorum;
pub mod recovery;

mod ending;
mod worker_reports;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_shared::ids::{Generation, Incarnation, RunId, Step, WorkerId};
use longtake_shared::protocol::{Flags, Stage};

use crate::journal::Record;
use crate::updates::{Progress, RunUpdate};
use command::{Command, Order};
use commit::{Committed, Decision, Saves};
use event::{Event, Identity, StopSource};
use membership::{Agent, AgentId, Lease, Worker, WorkerState};
use phase::{Phase, Team};
use quorum::Quorum;

/// What a run is told before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub run: RunId,
    /// Workers it needs.
    pub workers: usize,
    /// Lanes they share.
    pub lanes: usize,
    /// How long an agent that is not heard of still belongs to the run.
    pub lease: Duration,
    /// How long to wait for all workers to come.
    pub gather_timeout: Duration,
    /// The checkpoint it goes on from.
    pub started_from: Option<(Stage, Step)>,
}

impl Settings {
    /// How long a failed collective waits for the death that caused it: a death is found within a lease, and told.
    fn suspicion(&self) -> Duration {
        self.lease * 2
    }

    /// How long workers may take to end by themselves once they are told to.
    fn ending_grace(&self) -> Duration {
        self.lease * 2
    }
}

/// What the engine knows. Times are since the coordinator's start.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// This start of the coordinator.
    pub incarnation: Incarnation,
    /// The newest generation that was announced, over all incarnations.
    pub generation: Generation,
    /// Where the run stands.
    pub phase: Phase,
    /// Agents that hold or held a lease.
    pub agents: BTreeMap<AgentId, Agent>,
    /// Every worker process of this coordinator's time.
    pub workers: BTreeMap<WorkerId, Worker>,
    /// Checkpoints on their way.
    pub saves: Saves,
    /// The validation that is going on: its step, and the workers that are through.
    pub validation: Option<(Step, BTreeSet<WorkerId>)>,
    /// What the operator wishes.
    pub flags: Flags,
    /// Ctrl-C was pressed.
    pub interrupted: bool,
    /// The newest progress of rank 0.
    pub progress: Option<Progress>,
    /// When leases were judged last.
    pub last_tick: Duration,
    /// Messages that were dropped because they spoke for something that is over.
    pub stale: u64,
}

/// The state machine of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEngine {
    settings: Settings,
    state: RunState,
}

impl RunEngine {
    /// A run in its first phase. `generation` is the newest that any earlier coordinator of the run has announced.
    pub fn new(settings: Settings, incarnation: Incarnation, generation: Generation, now: Duration) -> Self {
        let state = RunState {
            incarnation,
            generation,
            phase: Phase::Gathering { since: now },
            agents: BTreeMap::new(),
            workers: BTreeMap::new(),
            saves: Saves::default(),
            validation: None,
            flags: Flags::default(),
            interrupted: false,
            progress: None,
            last_tick: now,
            stale: 0,
        };
        Self { settings, state }
    }

    /// What the engine knows.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// What the run was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a message speaks for the live generation, in the name of the worker that sent it.
    pub fn is_current(&self, worker: &WorkerId, identity: &Identity) -> bool {
        let rank = self.state.phase.team().and_then(|team| team.rank(worker));
        identity.run == self.settings.run
            && identity.incarnation == self.state.incarnation
            && identity.generation == self.state.generation
            && rank == Some(identity.rank)
    }

    /// What to do about an event that happens now.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Command> {
        let before = invariants::Before::of(&self.state);
        let mut commands = Vec::new();
        self.react(now, event, &mut commands);
        if let Err(broken) = invariants::check(&self.settings, &before, &self.state) {
            // Not a matter of input: going on would commit or publish under a broken protocol.
            panic!("an event broke the run's state: {broken:?}");
        }
        commands
    }

    fn react(&mut self, now: Duration, event: Event, commands: &mut Vec<Command>) {
        match event {
            Event::AgentConnected { agent, host, slots, .. } => {
                self.state.agents.insert(agent, Agent { host, slots, heard: now });
                self.start_workers(commands);
            }
            Event::AgentRenewed { agent } => {
                if let Some(agent) = self.state.agents.get_mut(&agent) {
                    agent.heard = now;
                }
            }
            Event::AgentDisconnected { agent } => self.agent_disconnected(&agent),
            Event::WorkerJoined { worker, ring_address, pid } => {
                self.worker_joined(&worker, WorkerState::Joined { ring_address, pid }, commands);
            }
            Event::FromWorker { worker, identity, report } => {
                self.worker_reports(now, &worker, &identity, report, commands);
            }
            Event::WorkerExited(event::WorkerEnd { worker, cause, log, .. }) => {
                self.worker_exited(now, &worker, cause, log, commands);
            }
            Event::WorkerHung { .. } => {}
            Event::StartFailed { worker, message } => self.start_failed(now, &worker, &message, commands),
            Event::Committed { stage, step, sequence } => {
                self.committed(Committed { stage, step, sequence }, commands);
            }
            Event::CommitFailed { message, hint } => self.commit_failed(now, &message, hint, commands),
            Event::ReportMade { step, epoch, average_map, best, report } => {
                commands.push(Command::Announce(RunUpdate::Validated {
                    step,
                    epoch,
                    average_map,
                    best,
                    report,
                }));
                self.tell_team(Order::Validated { step, average_map, best }, commands);
            }
            Event::ReportFailed { message } => {
                self.fail(now, format!("the validation has no report: {message}"), None, commands);
            }
            Event::Tick => self.tick(now, commands),
            Event::Stop(source) => self.stop(now, source, commands),
            Event::CheckpointWanted => {
                self.state.flags.checkpoint = true;
                self.tell_flags(commands);
            }
            Event::Broken { message } => self.fail(now, message, None, commands),
        }
        self.settle(commands);
    }

    /// Starts what is missing, on the agents in their order, as long as they have slots.
    fn start_workers(&mut self, commands: &mut Vec<Command>) {
        if !matches!(self.state.phase, Phase::Gathering { .. }) {
            return;
        }
        for index in 0..self.settings.workers {
            let alive = || self.state.workers.values().filter(|worker| worker.alive());
            if alive().any(|worker| worker.index == index) {
                continue;
            }
            let free = |(id, agent): &(&AgentId, &Agent)| {
                alive().filter(|worker| worker.agent == **id).count() < agent.slots
            };
            let Some(agent) = self.state.agents.iter().find(free).map(|(id, _)| id.clone()) else { return };
            let worker = membership::worker_id(index, self.state.workers.len());
            let known = Worker { index, agent: agent.clone(), state: WorkerState::Starting, done: None };
            self.state.workers.insert(worker.clone(), known);
            commands.push(Command::StartWorker { agent, worker, index });
        }
    }

    fn worker_joined(&mut self, id: &WorkerId, joined: WorkerState, commands: &mut Vec<Command>) {
        let Some(worker) =
            self.state.workers.get_mut(id).filter(|worker| worker.state == WorkerState::Starting)
        else {
            self.state.stale += 1;
            return;
        };
        worker.state = joined;
        match &self.state.phase {
            Phase::Gathering { .. } => self.try_form(commands),
            Phase::Ending { .. } => self.tell(vec![id.clone()], Order::Shutdown, commands),
            Phase::Forming { .. } | Phase::Training { .. } | Phase::Finished { .. } => {}
        }
    }

    fn try_form(&mut self, commands: &mut Vec<Command>) {
        let members = match quorum::decide(&self.state.workers, self.settings.workers) {
            Quorum::Form { members } => members,
            Quorum::WorkersMissing { present, needed } => {
                commands.push(Command::Announce(RunUpdate::Gathering { present, needed }));
                return;
            }
        };
        let generation = self.state.generation.next();
        let lanes = assignment::assign(self.settings.lanes, &members, &BTreeMap::new());
        let peers = members.iter().filter_map(|id| self.state.workers[id].ring_address()).collect();
        commands.push(Command::Journal(Record::Generation { generation, world: members.len() }));
        self.state.generation = generation;
        self.state.phase = Phase::Forming {
            team: Team { generation, members: members.clone(), lanes: lanes.clone() },
            ready: BTreeSet::new(),
        };
        self.tell(members, Order::Form { peers, lanes, carried: None }, commands);
    }

    fn tick(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let overslept = membership::overslept(self.state.last_tick, now, self.settings.lease);
        self.state.last_tick = now;
        for agent in self.state.agents.values_mut() {
            agent.heard = (agent.heard + overslept).min(now);
        }
        let lost: Vec<(AgentId, Duration)> = self
            .state
            .agents
            .iter()
            .filter_map(|(id, agent)| match membership::lease(agent, now, self.settings.lease) {
                Lease::Expired { silent } => Some((id.clone(), silent)),
                Lease::Held => None,
            })
            .collect();
        for (agent, silent) in lost {
            self.agent_lost(now, &agent, silent, commands);
        }
        self.judge_deadlines(now, commands);
    }

    fn agent_lost(&mut self, now: Duration, id: &AgentId, silent: Duration, commands: &mut Vec<Command>) {
        let Some(agent) = self.state.agents.remove(id) else { return };
        for worker in self.state.workers.values_mut().filter(|worker| worker.agent == *id && worker.alive()) {
            worker.state = WorkerState::Gone { cause: None };
        }
        let cause =
            format!("the agent on `{}` was not heard of for {:.1} s", agent.host, silent.as_secs_f64());
        let hint = "if the machine is only slow, raise `cluster.lease`".to_owned();
        self.fail(now, cause, Some(hint), commands);
    }

    fn judge_deadlines(&mut self, now: Duration, commands: &mut Vec<Command>) {
        match &self.state.phase {
            Phase::Gathering { since } if now.saturating_sub(*since) > self.settings.gather_timeout => {
                let present =
                    self.state.workers.values().filter(|worker| worker.ring_address().is_some()).count();
                let cause = format!(
                    "only {present} of {} workers came within {:.0} s",
                    self.settings.workers,
                    self.settings.gather_timeout.as_secs_f64()
                );
                let hint = "see the workers' logs, or raise `cluster.gather_timeout`".to_owned();
                self.fail(now, cause, Some(hint), commands);
            }
            Phase::Training { suspicion: Some(suspicion), .. }
                if now.saturating_sub(suspicion.since) > self.settings.suspicion() =>
            {
                let cause = format!("a collective failed on {}: {}", suspicion.rank, suspicion.message);
                self.fail(now, cause, None, commands);
            }
            Phase::Ending { since, killed: false, .. }
                if now.saturating_sub(*since) > self.settings.ending_grace() =>
            {
                self.kill(commands);
            }
            Phase::Ending { since, killed: true, .. }
                if now.saturating_sub(*since) > self.settings.ending_grace() * 2 =>
            {
                // Whoever should have told that they are dead is not there to tell.
                for worker in self.state.workers.values_mut().filter(|worker| worker.alive()) {
                    worker.state = WorkerState::Gone { cause: None };
                }
            }
            _ => {}
        }
    }

    /// The first wish to stop is fulfilled at a step boundary; a second Ctrl-C kills.
    fn stop(&mut self, now: Duration, source: StopSource, commands: &mut Vec<Command>) {
        let again = source == StopSource::Interrupt && self.state.interrupted;
        self.state.interrupted |= source == StopSource::Interrupt;
        if again {
            let cause = "killed by a second Ctrl-C".to_owned();
            self.fail(now, cause, None, commands);
            self.state.saves.failed();
            self.kill(commands);
            return;
        }
        match self.state.phase {
            Phase::Training { .. } => {
                if !self.state.flags.stop {
                    self.state.flags.stop = true;
                    self.tell_flags(commands);
                }
            }
            Phase::Gathering { .. } | Phase::Forming { .. } => {
                let step = self.resume_point().step().unwrap_or_default();
                self.end(now, crate::updates::Outcome::Preempted { step }, commands);
            }
            Phase::Ending { .. } | Phase::Finished { .. } => {}
        }
    }

    fn committed(&mut self, committed: Committed, commands: &mut Vec<Command>) {
        if !self.state.saves.committed(committed) {
            self.state.stale += 1;
            return;
        }
        let Committed { stage, step, sequence } = committed;
        commands.push(Command::Journal(Record::Committed(committed)));
        commands.push(Command::Announce(RunUpdate::Saved { step, sequence }));
        self.tell_team(Order::Committed { stage, step, sequence }, commands);
        if self.state.flags.checkpoint {
            self.state.flags.checkpoint = false;
            self.tell_flags(commands);
        }
        self.try_commit(commands);
    }

    fn try_commit(&mut self, commands: &mut Vec<Command>) {
        let Some(team) = self.state.phase.team() else { return };
        let Decision::Commit(moment) = self.state.saves.decide(team.world()) else { return };
        if let Some(request) = self.state.saves.start(moment, self.state.incarnation, team) {
            commands.push(Command::CommitCheckpoint(request));
        }
    }

    fn tell(&self, workers: Vec<WorkerId>, order: Order, commands: &mut Vec<Command>) {
        if !workers.is_empty() {
            commands.push(Command::Tell { generation: self.state.generation, workers, order });
        }
    }

    fn tell_team(&self, order: Order, commands: &mut Vec<Command>) {
        let members = self.state.phase.team().map(|team| team.members.clone());
        self.tell(members.unwrap_or_default(), order, commands);
    }

    fn tell_flags(&self, commands: &mut Vec<Command>) {
        if matches!(self.state.phase, Phase::Training { .. }) {
            self.tell_team(Order::SetFlags(self.state.flags), commands);
        }
    }
}
