//! What `longtake status` shows of a run: a snapshot of the engine and of what the agents see.

use std::time::Duration;

use longtake_shared::ids::{Generation, Incarnation, LaneId, Rank, RunId, WorkerId};
use longtake_shared::protocol::{ExitCause, Flags, Stage};
use longtake_shared::units::Seconds;
use serde::{Deserialize, Serialize};

use crate::run::RunEngine;
use crate::run::commit::Committed;
use crate::run::event::Doing;
use crate::run::membership::{AgentId, WorkerState};
use crate::run::phase::{Phase, PhaseKind};
use crate::run::quorum::Quorum;
use crate::updates::{Outcome, Progress};

/// A run as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Its name.
    pub run: RunId,
    /// Which start of its coordinator.
    pub incarnation: Incarnation,
    /// Its newest generation.
    pub generation: Generation,
    /// Where it stands.
    pub phase: PhaseKind,
    /// Why no generation has formed, while it gathers or recovers.
    pub waiting_for: Option<Quorum>,
    /// Since the coordinator's start.
    pub uptime: Seconds,
    /// The agents that belong to the run.
    #[serde(default)]
    pub agents: Vec<AgentStatus>,
    /// Indexes of workers that the run wants and does not have.
    #[serde(default)]
    pub missing: Vec<usize>,
    /// Every worker process of this coordinator's time, by index.
    pub workers: Vec<WorkerStatus>,
    /// The newest progress.
    pub progress: Option<Progress>,
    /// What the operator wishes.
    pub flags: Flags,
    /// The newest checkpoint of this coordinator's time.
    pub committed: Option<Committed>,
    /// Messages dropped because they spoke for something that is over.
    pub stale_messages: u64,
    /// What the run will end with, once that is known.
    pub outcome: Option<Outcome>,
}

/// An agent as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// One start of one agent.
    pub agent: AgentId,
    /// Where it runs.
    pub host: String,
    /// Workers it can start.
    pub slots: usize,
    /// Since it was heard of last.
    pub silent: Seconds,
}

/// A worker as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Which worker of the run, from 0.
    pub index: usize,
    /// Its process's name.
    pub worker: WorkerId,
    /// Its rank in the live generation.
    pub rank: Option<Rank>,
    /// Its lanes there.
    pub lanes: Vec<LaneId>,
    /// Its process, once connected.
    pub pid: Option<u32>,
    /// How it ended, where that is known.
    pub ended: Option<ExitCause>,
    /// Whether it may still run.
    pub alive: bool,
    /// The stage it is in, and the units of it that are done.
    pub done: Option<(Stage, u64)>,
    /// What it did at the agent's last look.
    pub doing: Option<Doing>,
}

/// Takes the snapshot.
pub fn report(engine: &RunEngine, now: Duration) -> StatusReport {
    let state = engine.state();
    let team = state.phase.team();
    let mut workers: Vec<WorkerStatus> = state
        .workers
        .iter()
        .map(|(id, worker)| {
            let rank = team.and_then(|team| team.rank(id));
            let (pid, ended) = match &worker.state {
                WorkerState::Unseen | WorkerState::Starting => (None, None),
                WorkerState::Joined { pid, .. } => (Some(*pid), None),
                WorkerState::Gone { cause } => (None, *cause),
            };
            WorkerStatus {
                index: worker.index,
                worker: id.clone(),
                rank,
                lanes: team
                    .zip(rank)
                    .map(|(team, rank)| team.lanes[rank.index()].clone())
                    .unwrap_or_default(),
                pid,
                ended,
                alive: worker.alive(),
                done: worker.done,
                doing: worker.doing,
            }
        })
        .collect();
    workers.sort_by_key(|worker| worker.index);
    let missing = engine.missing();
    let agents = state.agents.iter().map(|(id, agent)| AgentStatus {
        agent: id.clone(),
        host: agent.host.clone(),
        slots: agent.slots,
        silent: Seconds(now.saturating_sub(agent.heard).as_secs_f64()),
    });
    let agents = agents.collect();
    let outcome = match &state.phase {
        Phase::Ending { outcome, .. } | Phase::Finished { outcome } => Some(outcome.clone()),
        Phase::Gathering { .. }
        | Phase::Forming { .. }
        | Phase::Training { .. }
        | Phase::Recovering { .. } => None,
    };
    StatusReport {
        run: engine.settings().run.clone(),
        incarnation: state.incarnation,
        generation: state.generation,
        phase: state.phase.kind(),
        waiting_for: engine.quorum(now),
        uptime: Seconds(now.as_secs_f64()),
        agents,
        missing,
        workers,
        progress: state.progress.clone(),
        flags: state.flags,
        committed: state.saves.newest(),
        stale_messages: state.stale,
        outcome,
    }
}
