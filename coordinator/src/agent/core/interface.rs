//! What an agent's core is told, and what it says is to be done.

use std::collections::BTreeMap;
use std::time::Duration;

use longtake_shared::hint::ExitCode;
use longtake_shared::ids::{RunId, Step, WorkerId};
use longtake_shared::protocol::flight::{Flight, FlightRecord};
use longtake_shared::protocol::stamp::StepPhase;
use longtake_shared::protocol::{ExitCause, wire};

use crate::run::membership::AgentId;

/// What an agent does when its coordinator is gone without a goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// It ends: the coordinator lives in the same process.
    End,
    /// It keeps its workers and looks for the coordinator, until the grace is over.
    Reconnect,
}

/// Who an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// One start of one agent.
    pub agent: AgentId,
    /// Where it runs.
    pub host: String,
    /// Workers it can start.
    pub slots: usize,
    /// What it does without a coordinator.
    pub on_loss: OnLoss,
}

/// One link of a worker; a number that is not used again.
pub type LinkId = u64;

/// What happens to an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentInput {
    /// The coordinator of that run can be talked to.
    Reached {
        /// The run.
        run: RunId,
    },
    /// The coordinator was not found, could not be reached, or has gone again.
    Lost {
        /// Why, as the rest of a sentence.
        reason: String,
    },
    /// The coordinator does not want this agent, and never will.
    Refused {
        /// Why.
        reason: String,
    },
    /// The coordinator gives an order.
    Order(wire::AgentOrder),
    /// A worker has opened its link and said hello.
    WorkerJoined {
        /// Its link.
        link: LinkId,
        /// What it said.
        hello: wire::WorkerMessage,
    },
    /// A worker says something else. The log's last lines are in `Failed` already.
    WorkerSaid {
        /// Its link.
        link: LinkId,
        /// What it said.
        message: wire::WorkerMessage,
    },
    /// A worker's link is over; nothing follows.
    WorkerSilent {
        /// The link.
        link: LinkId,
    },
    /// A worker could not be started.
    StartFailed {
        /// Which.
        worker: WorkerId,
        /// Why.
        message: String,
    },
    /// A worker's process is over.
    Ended {
        /// Which.
        worker: WorkerId,
        /// How.
        cause: ExitCause,
        /// The last lines of its log.
        log: Vec<String>,
        /// What it did last.
        last: Option<Doing>,
    },
    /// It is time to look at the workers, and to renew the lease: see [`super::AgentCore::tick_period`].
    Tick {
        /// What flight recorders have shown since the last time.
        readings: BTreeMap<WorkerId, Reading>,
    },
}

/// A phase that is over, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Which.
    pub phase: StepPhase,
    /// How long it took.
    pub took: Duration,
    /// It went on with the last one of its kind, after something within that.
    pub resumed: bool,
}

/// What the flight recorder of a worker shows. Times are of the clock that `now` is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The last sign of life; nothing before the first.
    pub alive: Option<Duration>,
    /// What it does.
    pub doing: Option<Doing>,
    /// Phases that have ended since the last reading, and how long they took.
    pub finished: Vec<Finished>,
}

impl From<&Flight> for Reading {
    fn from(flight: &Flight) -> Self {
        let finished = |record: &FlightRecord| {
            Some(Finished { phase: record.phase, took: record.took?, resumed: record.resumed })
        };
        Self {
            alive: flight.alive,
            doing: flight.records.last().map(|record| Doing {
                sequence: record.sequence,
                step: record.step,
                phase: record.phase,
                entered_at: record.entered_at,
            }),
            finished: flight.records.iter().filter_map(finished).collect(),
        }
    }
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doing {
    /// Which record says so.
    pub sequence: u64,
    /// Steps of the stage done.
    pub step: Step,
    /// What it does.
    pub phase: StepPhase,
    /// Since when.
    pub entered_at: Duration,
}

/// What an agent does.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentOutput {
    /// Look the coordinator up and connect, after a pause. `Reached` or `Lost` follows.
    Call {
        /// The pause.
        after: Duration,
    },
    /// Close the link to the coordinator; nothing of it may come any more.
    HangUp,
    /// Send to the coordinator; the first after `Reached` opens the link.
    Send(wire::AgentMessage),
    /// The same, with the last lines of that worker's log put into the body, a `WorkerHung`.
    SendWithLog {
        /// The worker.
        worker: WorkerId,
        /// The message.
        message: wire::AgentMessage,
    },
    /// Pass an order on to a worker.
    Tell {
        /// Its link.
        link: LinkId,
        /// The order.
        order: wire::WorkerOrder,
    },
    /// Start a worker's process. `StartFailed` may follow, `Ended` does in the end.
    Start {
        /// Which.
        worker: WorkerId,
        /// Which worker of the run it is.
        index: u32,
    },
    /// Kill a worker's process. `Ended` follows.
    Kill {
        /// Which.
        worker: WorkerId,
    },
    /// End, and kill what still runs.
    End(AgentEnd),
}

/// Why an agent ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEnd {
    /// The run is over.
    Over(ExitCode),
    /// The coordinator refuses it.
    Refused(String),
    /// The coordinator is gone, and this agent ends with it.
    Lost(String),
    /// The coordinator has been gone for longer than the grace.
    GraceOver {
        /// How long that is.
        grace: Duration,
        /// What the last call came to.
        reason: String,
    },
}

/// What a coordinator tells with its welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long an agent that is not heard of belongs to the run.
    pub lease: Duration,
    /// How long it lasts without a coordinator.
    pub grace: Duration,
    /// How long a phase may take before enough of its kind were measured.
    pub phase_deadline: Duration,
}
