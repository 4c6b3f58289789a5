//! The inputs and outputs of an agent's decision core.

use std::collections::BTreeMap;
use std::time::Duration;

use longtake_shared::hint::ExitCode;
use longtake_shared::ids::{AgentId, RunId, WorkerId};
use longtake_shared::protocol::flight::{Flight, FlightRecord};
use longtake_shared::protocol::{
    AgentMessage, AgentOrder, ExitCause, WorkerHello, WorkerMessage, WorkerOrder,
};

/// The reaction of an agent to the loss of its coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// End: the coordinator runs in the same process.
    End,
    /// Keep the workers and reconnect, until the grace is over.
    Reconnect,
}

/// The identity of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// Its id.
    pub agent: AgentId,
    /// Name of its machine.
    pub host: String,
    /// Number of workers it can start.
    pub slots: usize,
    /// Reaction to the loss of the coordinator.
    pub on_loss: OnLoss,
}

/// Id of a worker's link; it is never reused.
pub type LinkId = u64;

/// An input of the core.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentInput {
    /// The connection to the coordinator of that run is open.
    Reached {
        /// The run.
        run: RunId,
    },
    /// The coordinator was not found or not reachable, or the connection was lost.
    Lost {
        /// The cause, as the rest of a sentence.
        reason: String,
    },
    /// The coordinator has refused this agent for good.
    Refused {
        /// The cause.
        reason: String,
    },
    /// An order of the coordinator.
    Order(AgentOrder),
    /// A worker has opened its link and said hello.
    WorkerJoined {
        /// Its link.
        link: LinkId,
        /// Its first message.
        hello: WorkerHello,
    },
    /// A later message of a worker. `Failed` already contains the last lines of the log.
    WorkerSaid {
        /// Its link.
        link: LinkId,
        /// The message.
        message: WorkerMessage,
    },
    /// A worker's link has closed; no message follows.
    WorkerSilent {
        /// The link.
        link: LinkId,
    },
    /// A worker could not be started.
    StartFailed {
        /// The worker.
        worker: WorkerId,
        /// The cause.
        message: String,
    },
    /// A worker's process has ended.
    Ended {
        /// The worker.
        worker: WorkerId,
        /// How it ended.
        cause: ExitCause,
        /// The last lines of its log.
        log: Vec<String>,
        /// Its last record.
        last: Option<FlightRecord>,
    },
    /// Periodic check of the workers and renewal of the lease: see [`super::AgentCore::tick_period`].
    Tick {
        /// The flight recorders since the last tick.
        readings: BTreeMap<WorkerId, Reading>,
    },
}

/// The content of a worker's flight recorder since the last reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The last sign of life, by the clock of `now`; absent before the first.
    pub alive: Option<Duration>,
    /// The record of the current phase.
    pub current: Option<FlightRecord>,
    /// Records of phases that have ended, with their durations.
    pub finished: Vec<FlightRecord>,
}

impl From<&Flight> for Reading {
    fn from(flight: &Flight) -> Self {
        Self {
            alive: flight.alive,
            current: flight.records.last().copied(),
            finished: flight.records.iter().filter(|record| record.took.is_some()).copied().collect(),
        }
    }
}

/// An action that the core asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentOutput {
    /// Look up the coordinator and connect, after a pause. `Reached` or `Lost` follows.
    Call {
        /// The pause.
        after: Duration,
    },
    /// Close the link to the coordinator; no further input of it may arrive.
    HangUp,
    /// Send to the coordinator; the first after `Reached` opens the link.
    Send(AgentMessage),
    /// The same for a `WorkerHung` message, after the last lines of that worker's log were added.
    SendWithLog {
        /// The worker.
        worker: WorkerId,
        /// The message.
        message: AgentMessage,
    },
    /// Forward an order to a worker.
    Tell {
        /// Its link.
        link: LinkId,
        /// The order.
        order: Box<WorkerOrder>,
    },
    /// Start a worker's process. `StartFailed` or, later, `Ended` follows.
    Start {
        /// The worker.
        worker: WorkerId,
        /// Its index in the run, from 0.
        index: u32,
    },
    /// Kill a worker's process. `Ended` follows.
    Kill {
        /// The worker.
        worker: WorkerId,
    },
    /// End the agent, and kill the remaining workers.
    End(AgentEnd),
}

/// The reason for the end of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEnd {
    /// The run is over.
    Over(ExitCode),
    /// The coordinator refused it.
    Refused(String),
    /// The coordinator is lost, and this agent ends with it.
    Lost(String),
    /// The coordinator has been lost for longer than the grace.
    GraceOver {
        /// The grace.
        grace: Duration,
        /// The result of the last attempt to connect.
        reason: String,
    },
}
