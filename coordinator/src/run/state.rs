//! The state of the engine. Times are measured since the coordinator's start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_shared::ids::{AgentId, Generation, Incarnation, LaneId, Step, WorkerId};
use longtake_shared::protocol::{Flags, Kept, Progress};

use super::commit::Saves;
use super::membership::{Agent, Worker};
use super::patience::Patience;
use super::phase::Phase;

/// The state of the engine. Times are measured since the coordinator's start.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// This start of the coordinator.
    pub incarnation: Incarnation,
    /// The newest generation announced, over all incarnations.
    pub generation: Generation,
    /// Phase of the run.
    pub phase: Phase,
    /// Agents and workers.
    pub roster: Roster,
    /// What workers hold from the previous generation.
    pub previous: Previous,
    /// Progress of the training.
    pub progress: RunProgress,
    /// Checkpoints that are being saved.
    pub saves: Saves,
    /// The validation in progress.
    pub validation: Validation,
    /// Requests of the operator.
    pub requests: Requests,
    /// Times of periodic work.
    pub timers: Timers,
    /// Event counters.
    pub counters: Counters,
}

/// Agents and workers of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Roster {
    /// Agents that hold a lease.
    pub agents: BTreeMap<AgentId, Agent>,
    /// Agents whose lease has expired. One that reconnects belongs to the run again, without its workers.
    pub lost: BTreeMap<AgentId, Agent>,
    /// Every worker process that may still run, and for each index the last one that ended.
    pub workers: BTreeMap<WorkerId, Worker>,
    /// Workers that were declared lost although their process may still run, with their agents. A frozen process may resume.
    pub at_large: BTreeMap<WorkerId, AgentId>,
    /// Number of worker processes started by this coordinator.
    pub started: usize,
    /// Time at which the latest worker joined.
    pub last_joined: Duration,
}

/// What the workers of the previous generation hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Previous {
    /// The lanes of each member of the newest generation.
    pub owned: BTreeMap<WorkerId, Vec<LaneId>>,
    /// The state that each worker held when it left its generation.
    pub kept: BTreeMap<WorkerId, Kept>,
}

/// Progress of the training.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunProgress {
    /// The retry budget.
    pub patience: Patience,
    /// Whether a generation has trained under this coordinator, or was found alive by it.
    pub trained: bool,
    /// The latest progress of rank 0.
    pub newest: Option<Progress>,
}

/// The validation in progress.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validation {
    /// Its step, and the workers that have sent all their detections.
    pub running: Option<(Step, BTreeSet<WorkerId>)>,
    /// The generation whose report is being computed.
    pub reporting: Option<Generation>,
}

/// Requests of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// Requests that the ranks agree on.
    pub flags: Flags,
    /// Time of the request to stop.
    pub stop_since: Option<Duration>,
    /// Whether Ctrl-C was pressed.
    pub interrupted: bool,
}

/// Times of periodic work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// The latest notice about missing workers.
    pub last_notice: Duration,
    /// The latest tick, or the first event after a sleep.
    pub last_tick: Duration,
}

/// Event counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Events handled.
    pub handled: u64,
    /// Messages dropped because they belonged to an older generation or worker.
    pub stale: u64,
}

impl RunState {
    pub(super) fn new(incarnation: Incarnation, generation: Generation, phase: Phase, now: Duration) -> Self {
        Self {
            incarnation,
            generation,
            phase,
            roster: Roster { last_joined: now, ..Roster::default() },
            previous: Previous::default(),
            progress: RunProgress::default(),
            saves: Saves::default(),
            validation: Validation::default(),
            requests: Requests::default(),
            timers: Timers { last_notice: now, last_tick: now },
            counters: Counters::default(),
        }
    }

    /// Whether a worker process may still run.
    pub fn is_alive(&self, worker: &WorkerId) -> bool {
        self.roster.workers.get(worker).is_some_and(Worker::alive)
    }
}
