//! The events that the engine handles; the list is closed.

use std::net::SocketAddr;

use longtake_shared::ids::{AgentId, Epoch, Step, WorkerId};
use longtake_shared::protocol::{Doing, HeldWorker, Identity, SavedStage, WorkerEnd, WorkerReport};
use longtake_shared::units::Seconds;

/// The source of a request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSource {
    /// Ctrl-C (SIGINT). The second one kills the workers.
    Interrupt,
    /// SIGTERM or SIGUSR1 of a scheduler. Schedulers send both, so repetitions count once.
    Scheduler,
    /// `longtake stop`.
    Operator,
}

/// The report of a validation.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportMade {
    /// Steps trained before it.
    pub step: Step,
    /// Epochs trained before it.
    pub epoch: Epoch,
    /// Mean AP over classes, then over tIoU thresholds.
    pub average_map: f64,
    /// No earlier validation was better.
    pub best: bool,
    /// The whole report.
    pub report: serde_json::Value,
}

/// An event that the engine handles.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An agent has opened its link.
    AgentConnected {
        /// The agent.
        agent: AgentId,
        /// Name of its machine.
        host: String,
        /// Number of workers it can start.
        slots: usize,
        /// Workers it holds already: it has lost an earlier coordinator or its link.
        held: Vec<HeldWorker>,
        /// Workers that ended since then.
        ended: Vec<WorkerEnd>,
    },
    /// An agent has renewed its lease.
    AgentRenewed {
        /// The agent.
        agent: AgentId,
        /// Current activity of its workers.
        doing: Vec<(WorkerId, Doing)>,
    },
    /// An agent's link has closed. During the run, the agent is lost only when it does not reconnect within its grace.
    AgentDisconnected {
        /// The agent.
        agent: AgentId,
    },
    /// A worker has connected to its agent.
    WorkerJoined {
        /// The worker.
        worker: WorkerId,
        /// Address on which its collective listens.
        ring_address: SocketAddr,
        /// Its process id.
        pid: u32,
    },
    /// A worker has sent a report.
    FromWorker {
        /// The worker.
        worker: WorkerId,
        /// The generation and rank of the report.
        identity: Identity,
        /// The report.
        report: WorkerReport,
    },
    /// A worker's process has ended.
    WorkerExited(WorkerEnd),
    /// A worker makes no progress, or shows no sign of life.
    WorkerHung {
        /// The worker.
        worker: WorkerId,
        /// Its activity, and for how long.
        doing: Doing,
        /// The longest duration expected.
        deadline: Seconds,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// A worker's process could not be started.
    StartFailed {
        /// The worker.
        worker: WorkerId,
        /// The cause, as a sentence.
        message: String,
    },
    /// A checkpoint is in the chain.
    Committed {
        /// The stage that was running.
        stage: SavedStage,
        /// Steps of that stage done.
        step: Step,
        /// Position in the chain.
        sequence: u64,
    },
    /// A checkpoint could not be committed.
    CommitFailed {
        /// The cause, as a sentence.
        message: String,
        /// Advice for the user.
        hint: Option<String>,
    },
    /// The search for an intact checkpoint has ended.
    CheckpointFound {
        /// The newest intact checkpoint, if any.
        found: Option<(SavedStage, Step)>,
        /// The damage of newer checkpoints, as sentences.
        passed_over: Vec<String>,
    },
    /// The object store cannot be read.
    CheckpointsUnreadable {
        /// The cause, as a sentence.
        message: String,
        /// Advice for the user.
        hint: Option<String>,
    },
    /// The report of a validation is complete.
    ReportMade(ReportMade),
    /// The report of a validation could not be computed.
    ReportFailed {
        /// The cause, as a sentence.
        message: String,
    },
    /// Time has passed; leases and deadlines are checked.
    Tick,
    /// A request to save and end.
    Stop(StopSource),
    /// A request to save and continue.
    CheckpointWanted,
    /// A part of the coordinator has failed.
    Broken {
        /// The failure, as a sentence.
        message: String,
    },
}
