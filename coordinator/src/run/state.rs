//! What the engine knows. Times are since the coordinator's start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_shared::ids::{Generation, Incarnation, LaneId, Step, WorkerId};
use longtake_shared::protocol::{Flags, Kept};

use super::commit::Saves;
use super::membership::{Agent, AgentId, Worker};
use super::patience::Patience;
use super::phase::Phase;
use crate::updates::Progress;

/// What the engine knows. Times are since the coordinator's start.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// This start of the coordinator.
    pub incarnation: Incarnation,
    /// The newest generation that was announced, over all incarnations.
    pub generation: Generation,
    /// Where the run stands.
    pub phase: Phase,
    /// Agents that hold a lease.
    pub agents: BTreeMap<AgentId, Agent>,
    /// Agents whose lease is over; one that is heard of again belongs to the run again, without its workers.
    pub lost: BTreeMap<AgentId, Agent>,
    /// Every worker process that may still run, and the last one that is gone of each index.
    pub workers: BTreeMap<WorkerId, Worker>,
    /// Worker processes that were started in this coordinator's time.
    pub started: usize,
    /// Who owned which lanes in the newest generation.
    pub owned: BTreeMap<WorkerId, Vec<LaneId>>,
    /// What workers that have left their generation hold.
    pub kept: BTreeMap<WorkerId, Kept>,
    /// Workers that were given up and whose end nobody has seen, with their agents: one that was only frozen may go on.
    pub at_large: BTreeMap<WorkerId, AgentId>,
    /// How far the run has come, and how often it has not.
    pub patience: Patience,
    /// A generation has trained in this coordinator's time, or lived before it.
    pub trained: bool,
    /// Checkpoints on their way.
    pub saves: Saves,
    /// The newest checkpoint may be damaged, and a whole one is being looked for.
    pub searching: bool,
    /// The validation that is going on: its step, and the workers that are through.
    pub validation: Option<(Step, BTreeSet<WorkerId>)>,
    /// The generation whose validation is being reported on.
    pub reporting: Option<Generation>,
    /// What the operator wishes.
    pub flags: Flags,
    /// When the wish to stop came.
    pub stop_since: Option<Duration>,
    /// Ctrl-C was pressed.
    pub interrupted: bool,
    /// The newest progress of rank 0.
    pub progress: Option<Progress>,
    /// When a worker came last.
    pub last_joined: Duration,
    /// When the run last said whom it waits for.
    pub last_notice: Duration,
    /// When time was looked at last, at a tick or after a sleep.
    pub last_tick: Duration,
    /// Events that were handled.
    pub handled: u64,
    /// Messages that were dropped because they spoke for something that is over.
    pub stale: u64,
}

impl RunState {
    pub(super) fn new(incarnation: Incarnation, generation: Generation, phase: Phase, now: Duration) -> Self {
        Self {
            incarnation,
            generation,
            phase,
            agents: BTreeMap::new(),
            lost: BTreeMap::new(),
            workers: BTreeMap::new(),
            started: 0,
            owned: BTreeMap::new(),
            kept: BTreeMap::new(),
            at_large: BTreeMap::new(),
            patience: Patience::default(),
            trained: false,
            saves: Saves::default(),
            searching: false,
            validation: None,
            reporting: None,
            flags: Flags::default(),
            stop_since: None,
            interrupted: false,
            progress: None,
            last_joined: now,
            last_notice: now,
            last_tick: now,
            handled: 0,
            stale: 0,
        }
    }

    /// Whether a worker process may still run.
    pub fn is_alive(&self, worker: &WorkerId) -> bool {
        self.workers.get(worker).is_some_and(Worker::alive)
    }
}
