//! Who belongs to a run: agents by their lease, workers by their process.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use longtake_shared::ids::{Incarnation, WorkerId};
use longtake_shared::protocol::{ExitCause, Stage};
use serde::{Deserialize, Serialize};

use super::event::Doing;

/// One start of one agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentId(pub String);

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An agent as the coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Where it runs.
    pub host: String,
    /// Workers it can start.
    pub slots: usize,
    /// When it was last heard of, since the coordinator's start.
    pub heard: Duration,
    /// Since when its link is broken.
    pub broken: Option<Duration>,
    /// Given up, since when it is heard of on the same link again. One whose own lease is over hangs up as soon as it can and
    /// says hello; what comes before is only what had piled up in the link.
    pub woken: Option<Duration>,
}

/// What is known of a worker's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerState {
    /// Of an earlier coordinator's generation; its agent has not come back yet.
    Unseen,
    /// Started, not connected yet.
    Starting,
    /// Connected to its agent.
    Joined {
        /// Where its collective listens.
        ring_address: SocketAddr,
        /// Its process.
        pid: u32,
    },
    /// Its process is over, or its agent is.
    Gone {
        /// How it ended; unknown where its agent is gone.
        cause: Option<ExitCause>,
    },
}

/// A worker as the coordinator knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// Which worker of the run it is, from 0.
    pub index: usize,
    /// The agent that started it.
    pub agent: AgentId,
    /// Since when it is known.
    pub since: Duration,
    /// What is known of its process.
    pub state: WorkerState,
    /// The stage it is in, and the units of it that are done.
    pub done: Option<(Stage, u64)>,
    /// What it did at its agent's last look.
    pub doing: Option<Doing>,
}

impl Worker {
    /// A worker of an agent, of which nothing else is known.
    pub fn new(index: usize, agent: AgentId, since: Duration, state: WorkerState) -> Self {
        Self { index, agent, since, state, done: None, doing: None }
    }

    /// Whether its process may still run.
    pub fn alive(&self) -> bool {
        !matches!(self.state, WorkerState::Gone { .. })
    }

    /// Where its collective listens, once it has connected.
    pub fn ring_address(&self) -> Option<SocketAddr> {
        match self.state {
            WorkerState::Joined { ring_address, .. } => Some(ring_address),
            WorkerState::Unseen | WorkerState::Starting | WorkerState::Gone { .. } => None,
        }
    }
}

/// The name of a worker process: its index, the coordinator's start, and how many processes that one had started before it.
pub fn worker_id(index: usize, incarnation: Incarnation, started_before: usize) -> WorkerId {
    WorkerId(format!("w{index}.{}.{started_before}", incarnation.0))
}

/// Whether an agent still belongs to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// It was heard of within its lease.
    Held,
    /// It was not, or its link broke and it has not come back.
    Expired {
        /// How long it was silent.
        silent: Duration,
    },
}

/// Judges an agent's lease. A link that breaks is a loss that tells itself: only a short time is given to come back.
pub fn lease(agent: &Agent, now: Duration, lease: Duration, reconnect_grace: Duration) -> Lease {
    let silent = now.saturating_sub(agent.heard);
    let broken = agent.broken.is_some_and(|since| now.saturating_sub(since) > reconnect_grace);
    if silent > lease || broken { Lease::Expired { silent } } else { Lease::Held }
}

/// How long the coordinator itself slept between two ticks: a stopped or starved coordinator has heard nobody, which says
/// nothing about them. Leases are prolonged by this much.
pub fn overslept(last_tick: Duration, now: Duration, lease: Duration) -> Duration {
    let gap = now.saturating_sub(last_tick);
    if gap > lease / 2 { gap } else { Duration::ZERO }
}
