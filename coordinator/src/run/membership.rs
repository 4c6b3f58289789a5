//! The members of a run: agents by their lease, workers by their process.

use std::net::SocketAddr;
use std::time::Duration;

use longtake_shared::ids::{AgentId, Incarnation, WorkerId};
use longtake_shared::protocol::{Doing, ExitCause, Stage};

/// An agent as the coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Name of its machine.
    pub host: String,
    /// Number of workers it can start.
    pub slots: usize,
    /// Time of its latest message, since the coordinator's start.
    pub heard: Duration,
    /// Time at which its link broke.
    pub broken: Option<Duration>,
    /// Time of the first message on the same link after it was declared lost. An agent whose own lease has expired disconnects
    /// soon and says hello; earlier messages had only piled up in the link.
    pub woken: Option<Duration>,
}

/// State of a worker's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerState {
    /// A member of an earlier coordinator's generation whose agent has not reconnected yet.
    Unseen,
    /// Started, not connected yet.
    Starting,
    /// Connected to its agent.
    Joined {
        /// Address on which its collective listens.
        ring_address: SocketAddr,
        /// Its process id.
        pid: u32,
    },
    /// Its process or its agent has ended.
    Gone {
        /// How it ended; unknown if its agent is lost.
        cause: Option<ExitCause>,
    },
}

/// A worker as the coordinator knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// Its index in the run, from 0.
    pub index: usize,
    /// The agent that started it.
    pub agent: AgentId,
    /// Time at which it became known.
    pub since: Duration,
    /// State of its process.
    pub state: WorkerState,
    /// Its stage, and the units of it that are done.
    pub done: Option<(Stage, u64)>,
    /// Its activity at the latest renewal of its agent.
    pub doing: Option<Doing>,
}

impl Worker {
    /// A worker without progress or activity.
    pub fn new(index: usize, agent: AgentId, since: Duration, state: WorkerState) -> Self {
        Self { index, agent, since, state, done: None, doing: None }
    }

    /// Whether its process may still run.
    pub fn alive(&self) -> bool {
        !matches!(self.state, WorkerState::Gone { .. })
    }

    /// Address on which its collective listens, once it has connected.
    pub fn ring_address(&self) -> Option<SocketAddr> {
        match self.state {
            WorkerState::Joined { ring_address, .. } => Some(ring_address),
            WorkerState::Unseen | WorkerState::Starting | WorkerState::Gone { .. } => None,
        }
    }
}

/// The id of a worker process: its index, the incarnation, and the number of processes this coordinator started before it.
pub fn worker_id(index: usize, incarnation: Incarnation, started_before: usize) -> WorkerId {
    WorkerId(format!("w{index}.{}.{started_before}", incarnation.0))
}

/// Whether an agent still belongs to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// A message arrived within the lease.
    Held,
    /// No message arrived, or the link broke and the agent has not reconnected.
    Expired {
        /// Time since the latest message.
        silent: Duration,
    },
}

/// Checks an agent's lease. A broken link reveals a loss at once: the agent has only a short grace to reconnect.
pub fn lease(agent: &Agent, now: Duration, lease: Duration, reconnect_grace: Duration) -> Lease {
    let silent = now.saturating_sub(agent.heard);
    let broken = agent.broken.is_some_and(|since| now.saturating_sub(since) > reconnect_grace);
    if silent > lease || broken { Lease::Expired { silent } } else { Lease::Held }
}

/// Time for which this process was suspended between two ticks. It received no messages meanwhile, which says nothing about the
/// senders: their leases are extended by this time.
pub fn overslept(last_tick: Duration, now: Duration, lease: Duration) -> Duration {
    let gap = now.saturating_sub(last_tick);
    if gap > lease / 2 { gap } else { Duration::ZERO }
}
