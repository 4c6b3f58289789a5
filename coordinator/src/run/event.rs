//! The closed list of what can happen to a run.

use std::net::SocketAddr;

use longtake_shared::ids::{Epoch, Generation, Incarnation, Rank, RunId, Step, WorkerId};
use longtake_shared::protocol::stamp::StepPhase;
use longtake_shared::protocol::{Ending, ExitCause, FailureScope, Kept, Progress, SavedParts, Stage};
use longtake_shared::units::Seconds;
use serde::{Deserialize, Serialize};

use super::membership::AgentId;

/// What a message is about; older ones are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The run.
    pub run: RunId,
    /// The coordinator's start that the sender obeys.
    pub incarnation: Incarnation,
    /// The membership it speaks for.
    pub generation: Generation,
    /// Its rank there.
    pub rank: Rank,
}

/// What a worker can tell.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerReport {
    /// Its state is loaded and its peers are reached.
    Ready,
    /// How far it is.
    Progress(Progress),
    /// Its share of a checkpoint is durable.
    PartsSaved(SavedParts),
    /// It has handed over the detections of all its videos.
    ValidationDone {
        /// Steps trained before the validation.
        step: Step,
    },
    /// Something a user should know.
    Warning(String),
    /// A collective did not come to its end.
    CollectiveFailed {
        /// What the collective said.
        message: String,
    },
    /// It cannot go on.
    Failed {
        /// Why, as a sentence.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// Whom it concerns.
        scope: FailureScope,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// It has left its generation, and touches nothing of the run until the next.
    Left {
        /// What it could go on from.
        kept: Option<Kept>,
    },
    /// It has nothing more to do in its generation.
    Finished {
        /// Steps trained.
        step: Step,
        /// Why.
        ending: Ending,
    },
}

/// What a worker does, as its agent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Doing {
    /// Steps of its stage done.
    pub step: Step,
    /// What it does.
    pub phase: StepPhase,
    /// For how long it had been doing it.
    pub since: Seconds,
}

/// A worker that an agent holds already when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldWorker {
    /// Which.
    pub worker: WorkerId,
    /// Which worker of the run it is, from 0.
    pub index: usize,
    /// Where its collective listens and which process it is; nothing before it has connected.
    pub joined: Option<(SocketAddr, u32)>,
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerEnd {
    /// Which.
    pub worker: WorkerId,
    /// How.
    pub cause: ExitCause,
    /// The last lines of its log.
    pub log: Vec<String>,
    /// What it did last.
    pub last: Option<Doing>,
}

/// Who asks a run to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSource {
    /// Ctrl-C (SIGINT): the second one kills.
    Interrupt,
    /// SIGTERM or SIGUSR1 of a scheduler, which sends both: any number of them asks once.
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

/// What can happen to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An agent has opened its link.
    AgentConnected {
        /// Which.
        agent: AgentId,
        /// Where it runs.
        host: String,
        /// Workers it can start.
        slots: usize,
        /// Workers that it holds already: it had lost a coordinator, or its link.
        held: Vec<HeldWorker>,
        /// Workers that have ended since.
        ended: Vec<WorkerEnd>,
    },
    /// An agent was heard of.
    AgentRenewed {
        /// Which.
        agent: AgentId,
        /// What its workers do.
        doing: Vec<(WorkerId, Doing)>,
    },
    /// An agent's link is over. While the run goes on, its lease decides what that means.
    AgentDisconnected {
        /// Which.
        agent: AgentId,
    },
    /// A worker has connected to its agent.
    WorkerJoined {
        /// Which.
        worker: WorkerId,
        /// Where its collective listens.
        ring_address: SocketAddr,
        /// Its process.
        pid: u32,
    },
    /// A worker tells something.
    FromWorker {
        /// Which.
        worker: WorkerId,
        /// What it speaks for.
        identity: Identity,
        /// What it tells.
        report: WorkerReport,
    },
    /// A worker's process is over.
    WorkerExited(WorkerEnd),
    /// A worker makes no progress, or shows no sign of life.
    WorkerHung {
        /// Which.
        worker: WorkerId,
        /// What it does, and for how long already.
        doing: Doing,
        /// The longest that was expected.
        deadline: Seconds,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// A worker's process could not be started.
    StartFailed {
        /// Which.
        worker: WorkerId,
        /// Why, as a sentence.
        message: String,
    },
    /// A checkpoint is in the chain.
    Committed {
        /// The stage that was running.
        stage: Stage,
        /// Steps of it done.
        step: Step,
        /// Its place in the chain.
        sequence: u64,
    },
    /// A checkpoint could not be put into the chain.
    CommitFailed {
        /// Why, as a sentence.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The newest whole checkpoint was looked for.
    CheckpointFound {
        /// It; nothing where none is whole or there is none.
        found: Option<(Stage, Step)>,
        /// What was passed over, and why.
        passed_over: Vec<String>,
    },
    /// The checkpoints cannot be read at all.
    CheckpointsUnreadable {
        /// Why, as a sentence.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The report of a validation is made.
    ReportMade(ReportMade),
    /// The report of a validation could not be made.
    ReportFailed {
        /// Why, as a sentence.
        message: String,
    },
    /// Time has passed; leases and deadlines are judged now.
    Tick,
    /// The run is asked to save and end.
    Stop(StopSource),
    /// The run is asked to save and go on.
    CheckpointWanted,
    /// A part of the coordinator itself has failed.
    Broken {
        /// What and why, as a sentence.
        message: String,
    },
}
