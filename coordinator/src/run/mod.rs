//! The coordinator's protocol as a pure state machine: `(now, event) -> commands`. It does no I/O and reads no clock.
//!
//! ```text
//!  agents, workers,      +-----------+                     journal, agents,
//!  committer, reporter,  |           |                     committer, reporter,
//!  signals, clock  ----> |  driver   | ----> commands ---> observers
//!                events  |  engine   |
//!                        +-----------+
//!
//!  Gathering --quorum--> Forming --all ready--> Training --all finished--> Ending --all gone--> Finished
//!                          ^  |                   |  |
//!                   quorum |  | a worker is lost  |  | a worker is lost; all agreed to let others join
//!                          |  v                   v  |
//!                         Recovering <---------------+
//! ```
//!
//! Decisions ([`crate::run::quorum`], [`crate::run::assignment`], [`crate::run::commit`], [`crate::run::recovery`], leases in
//! [`crate::run::membership`], [`crate::run::patience`]) are pure functions that return their reason.
//! [`crate::run::invariants`] are checked after every event.

pub mod assignment;
pub mod command;
pub mod commit;
pub mod event;
pub mod invariants;
pub mod membership;
pub mod patience;
pub mod phase;
pub mod quorum;
pub mod record;
pub mod recovery;
pub mod settings;
pub mod state;

mod ending;
mod forming;
mod losing;
mod saving;
mod staffing;
mod watching;
mod worker_reports;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_shared::ids::{AgentId, Generation, Incarnation, Rank, Step, WorkerId};
use longtake_shared::protocol::{Identity, Order, SavedStage};

use crate::updates::{Outcome, RunUpdate};
use command::Command;
use commit::Committed;
use event::{Event, StopSource};
use membership::{Agent, Worker, WorkerState};
use phase::{Phase, Team};
use recovery::ResumePoint;
pub use settings::Settings;
pub use state::RunState;

/// A generation of an earlier coordinator that may still run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its members and their lanes.
    pub team: Team,
    /// Index of each member in the run, by rank.
    pub indices: Vec<usize>,
}

/// The state machine of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEngine {
    settings: Settings,
    state: RunState,
}

impl RunEngine {
    /// A run in its first phase. `generation` is the newest one announced by any earlier coordinator of the run.
    pub fn new(settings: Settings, incarnation: Incarnation, generation: Generation, now: Duration) -> Self {
        let state = RunState::new(incarnation, generation, Phase::Gathering { since: now }, now);
        Self { settings, state }
    }

    /// A run whose last generation may still run: the engine looks for its members before it forms a new one.
    pub fn adopting(settings: Settings, incarnation: Incarnation, orphan: Orphan, now: Duration) -> Self {
        let Orphan { team, indices } = orphan;
        let (generation, owned) = (team.generation, team.owned());
        let workers: BTreeMap<WorkerId, Worker> = team
            .members
            .iter()
            .zip(indices)
            .map(|(id, index)| {
                (id.clone(), Worker::new(index, AgentId(String::new()), now, WorkerState::Unseen))
            })
            .collect();
        let phase = Phase::Forming {
            team,
            ready: BTreeSet::new(),
            order: None,
            adopted: Some(now),
            finished: BTreeMap::new(),
        };
        let mut state = RunState::new(incarnation, generation, phase, now);
        (state.roster.workers, state.previous.owned, state.progress.trained) = (workers, owned, true);
        Self { settings, state }
    }

    /// The state of the engine.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The settings of the run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a message belongs to the live generation and to the worker that sent it. Members of a generation use the
    /// incarnation that formed it.
    pub fn is_current(&self, worker: &WorkerId, identity: &Identity) -> bool {
        self.state.phase.team().is_some_and(|team| speaks_for(team, worker, identity))
            && identity.run == self.settings.run
    }

    /// Handles an event that happens now.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Command> {
        self.wake(now);
        if let Event::AgentRenewed { agent, doing } = event {
            if let Some(given_up) = self.state.roster.lost.get_mut(&agent) {
                let woken = *given_up.woken.get_or_insert(now);
                if now.saturating_sub(woken) <= self.settings.lease {
                    return Vec::new();
                }
                // The agent was suspended or unreachable, and does not know that it was declared lost.
                let Agent { host, slots, .. } = given_up.clone();
                let (held, ended) = (Vec::new(), Vec::new());
                return self.handle(now, Event::AgentConnected { agent, host, slots, held, ended });
            }
            // The most frequent event; it changes nothing that the invariants cover.
            self.agent_renewed(now, &agent, doing);
            return Vec::new();
        }
        self.state.counters.handled += 1;
        let before = invariants::Before::of(&self.state);
        let mut commands = Vec::new();
        self.react(now, event, &mut commands);
        if let Err(broken) = invariants::check(&self.settings, &before, &self.state) {
            // A defect of the engine, not of its input: continuing could commit or announce under a broken protocol.
            panic!("an event broke the run's state: {broken:?}");
        }
        commands
    }

    fn react(&mut self, now: Duration, event: Event, commands: &mut Vec<Command>) {
        match event {
            Event::AgentConnected { agent, host, slots, held, ended } => {
                self.agent_connected(now, &agent, (host, slots), held, commands);
                for end in ended {
                    self.worker_exited(now, end, commands);
                }
                self.start_workers(now, commands);
            }
            Event::AgentRenewed { agent, doing } => self.agent_renewed(now, &agent, doing),
            Event::AgentDisconnected { agent } => self.agent_disconnected(now, &agent),
            Event::WorkerJoined { worker, ring_address, pid } => {
                self.worker_joined(now, &worker, WorkerState::Joined { ring_address, pid }, commands);
            }
            Event::FromWorker { worker, identity, report } => {
                self.worker_reports(now, &worker, &identity, report, commands);
            }
            Event::WorkerExited(end) => self.worker_exited(now, end, commands),
            Event::WorkerHung { worker, doing, deadline, log } => {
                self.worker_hung(now, &worker, (doing, deadline), log, commands);
            }
            Event::StartFailed { worker, message } => self.start_failed(now, &worker, &message, commands),
            Event::Committed { stage, step, sequence } => {
                self.committed(Committed { stage, step, sequence }, commands);
            }
            Event::CommitFailed { message, hint } => self.commit_failed(now, &message, hint, commands),
            Event::CheckpointFound { found, passed_over } => {
                self.checkpoint_found(found, passed_over, commands);
            }
            Event::CheckpointsUnreadable { message, hint } => self.fail(now, message, hint, commands),
            Event::ReportMade(made) => self.report_made(made, commands),
            Event::ReportFailed { message } => {
                self.fail(
                    now,
                    format!("the report of the validation could not be computed: {message}"),
                    None,
                    commands,
                );
            }
            Event::Tick => self.tick(now, commands),
            Event::Stop(source) => self.stop(now, source, commands),
            Event::CheckpointWanted => {
                self.state.requests.flags.checkpoint = true;
                self.tell_flags(commands);
            }
            Event::Broken { message } => self.fail(now, message, None, commands),
        }
        self.end_if_hopeless(now, commands);
        self.try_form(now, commands);
        self.settle(commands);
    }

    /// The first request to stop takes effect at a step boundary; a second Ctrl-C kills the workers.
    fn stop(&mut self, now: Duration, source: StopSource, commands: &mut Vec<Command>) {
        let again = source == StopSource::Interrupt && self.state.requests.interrupted;
        self.state.requests.interrupted |= source == StopSource::Interrupt;
        if again {
            let cause = "killed by a second Ctrl-C".to_owned();
            self.fail(now, cause, None, commands);
            self.state.saves.failed();
            self.kill(commands);
            return;
        }
        if matches!(self.state.phase, Phase::Recovering { hopeless: true, .. }) {
            // Nothing is left to save, and the operator does not wait for the cause.
            self.end_hopeless(now, commands);
            return;
        }
        // State that members hold beyond the newest checkpoint is worth a save.
        let holds_more = match &self.state.phase {
            Phase::Training { .. } => true,
            Phase::Forming { .. } => self.state.progress.trained,
            Phase::Recovering { .. } => !self.state.previous.kept.is_empty(),
            Phase::Gathering { .. } | Phase::Ending { .. } | Phase::Finished { .. } => false,
        };
        if !holds_more {
            let step = self.resume_point().step().unwrap_or_default();
            self.end(now, Outcome::Preempted { step }, commands);
        } else if !self.state.requests.flags.stop {
            self.state.requests.flags.stop = true;
            self.state.requests.stop_since = Some(now);
            self.tell_flags(commands);
        }
    }

    /// The rank of a member of the live generation, or of the one that its members are leaving.
    fn rank(&self, worker: &WorkerId) -> Option<Rank> {
        match &self.state.phase {
            Phase::Forming { team, .. } | Phase::Training { team, .. } | Phase::Recovering { team, .. } => {
                team.rank(worker)
            }
            Phase::Gathering { .. } | Phase::Ending { .. } | Phase::Finished { .. } => None,
        }
    }

    fn resume_point(&self) -> ResumePoint {
        ResumePoint::decide(self.settings.started_from, self.state.saves.newest())
    }

    /// The newest checkpoint, if any.
    fn checkpoint(&self) -> Option<(SavedStage, Step)> {
        self.resume_point().moment()
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
            self.tell_team(Order::SetFlags(self.state.requests.flags), commands);
        }
    }

    fn announce(update: RunUpdate, commands: &mut Vec<Command>) {
        commands.push(Command::Announce(update));
    }
}

/// Whether an identity belongs to a member of a generation.
fn speaks_for(team: &Team, worker: &WorkerId, identity: &Identity) -> bool {
    identity.incarnation == team.incarnation
        && identity.generation == team.generation
        && team.rank(worker) == Some(identity.rank)
}
