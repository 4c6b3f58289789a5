//! The status report of a run: a snapshot of the engine and of the activity that the agents report.

use std::time::Duration;

use longtake_shared::ids::{AgentId, Generation, Incarnation, LaneId, Rank, RunId, WorkerId};
use longtake_shared::protocol::{Doing, ExitCause, Flags, Progress, Stage};
use longtake_shared::units::Seconds;
use serde::{Deserialize, Serialize};

use crate::run::RunEngine;
use crate::run::commit::Committed;
use crate::run::membership::WorkerState;
use crate::run::phase::{Phase, PhaseKind};
use crate::run::quorum::Quorum;
use crate::updates::Outcome;

/// The status of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Its name.
    pub run: RunId,
    /// The coordinator start.
    pub incarnation: Incarnation,
    /// Its newest generation.
    pub generation: Generation,
    /// Its phase.
    pub phase: PhaseKind,
    /// The reason why no generation has formed, while it gathers or recovers.
    pub waiting_for: Option<Quorum>,
    /// Time since the coordinator's start.
    pub uptime: Seconds,
    /// The agents that belong to the run.
    #[serde(default)]
    pub agents: Vec<AgentStatus>,
    /// Indices of the missing workers.
    #[serde(default)]
    pub missing: Vec<usize>,
    /// The worker processes, by index.
    pub workers: Vec<WorkerStatus>,
    /// The newest progress.
    pub progress: Option<Progress>,
    /// Requests of the operator.
    pub flags: Flags,
    /// The newest checkpoint committed by this coordinator.
    pub committed: Option<Committed>,
    /// Messages dropped because they belonged to an older generation or worker.
    pub stale_messages: u64,
    /// Outcome of the run, once it is known.
    pub outcome: Option<Outcome>,
}

/// The status of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The agent.
    pub agent: AgentId,
    /// Name of its machine.
    pub host: String,
    /// Number of workers it can start.
    pub slots: usize,
    /// Time since its latest message.
    pub silent: Seconds,
}

/// The status of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its index in the run, from 0.
    pub index: usize,
    /// Id of its process.
    pub worker: WorkerId,
    /// Its rank in the live generation.
    pub rank: Option<Rank>,
    /// Its lanes in that generation.
    pub lanes: Vec<LaneId>,
    /// Its process id, once connected.
    pub pid: Option<u32>,
    /// How it ended, if known.
    pub ended: Option<ExitCause>,
    /// Whether it may still run.
    pub alive: bool,
    /// Its stage, and the units of it that are done.
    pub done: Option<(Stage, u64)>,
    /// Its activity at the latest renewal of its agent.
    pub doing: Option<Doing>,
}

/// Takes the snapshot.
pub fn report(engine: &RunEngine, now: Duration) -> StatusReport {
    let state = engine.state();
    let team = state.phase.team();
    let mut workers: Vec<WorkerStatus> = state
        .roster
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
    let agents = state.roster.agents.iter().map(|(id, agent)| AgentStatus {
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
        progress: state.progress.newest.clone(),
        flags: state.requests.flags,
        committed: state.saves.newest(),
        stale_messages: state.counters.stale,
        outcome,
    }
}
