//! The closed list of what the engine may ask of the world. The driver carries them out in their order.

use std::net::SocketAddr;

use longtake_shared::ids::{Generation, Incarnation, LaneId, Step, WorkerId};
use longtake_shared::protocol::{Carried, Flags, Stage};

use super::membership::AgentId;
use crate::journal::Record;
use crate::updates::{Outcome, RunUpdate};

/// What a worker is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Load the state of the generation and reach the peers.
    Form {
        /// Where each rank's collective listens.
        peers: Vec<SocketAddr>,
        /// The lanes of each rank.
        lanes: Vec<Vec<LaneId>>,
        /// How the members go on from what they hold; nothing: all begin at the newest checkpoint, or at the start.
        carried: Option<Carried>,
    },
    /// A coordinator has taken over, or has found the agent again, and the generation lives on.
    Adopted,
    /// Every rank is ready.
    Train,
    /// The generation is over.
    Abort {
        /// Why, as a sentence.
        reason: String,
    },
    /// What to agree on at the next step boundary.
    SetFlags(Flags),
    /// A checkpoint is in the chain.
    Committed {
        /// The stage that was running.
        stage: Stage,
        /// Steps of it done.
        step: Step,
        /// Its place in the chain.
        sequence: u64,
    },
    /// The report of a validation is made.
    Validated {
        /// Steps trained before it.
        step: Step,
        /// Mean AP over classes, then over tIoU thresholds.
        average_map: f64,
        /// No earlier validation was better.
        best: bool,
    },
    /// End the process.
    Shutdown,
}

/// A checkpoint whose parts are all durable.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitRequest {
    /// Start of the coordinator that commits.
    pub incarnation: Incarnation,
    /// Generation that has saved.
    pub generation: Generation,
    /// The stage that was running.
    pub stage: Stage,
    /// Steps of it done.
    pub step: Step,
    /// Average mAP of the validation of the same step, where there was one.
    pub average_map: Option<f64>,
    /// The lanes of each rank.
    pub lanes: Vec<Vec<LaneId>>,
    /// What each rank has saved.
    pub parts: Vec<serde_json::Value>,
}

/// What the engine may ask of the world.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Make a record durable, before anything that follows.
    Journal(Record),
    /// Tell whoever watches.
    Announce(RunUpdate),
    /// Have an agent start a worker process.
    StartWorker {
        /// The agent.
        agent: AgentId,
        /// The new process's name.
        worker: WorkerId,
        /// Which worker of the run it is, from 0.
        index: usize,
    },
    /// Tell workers something; a member's rank is its position.
    Tell {
        /// The generation it is about; that of before the first is 0.
        generation: Generation,
        /// Whom.
        workers: Vec<WorkerId>,
        /// What.
        order: Order,
    },
    /// Put a checkpoint into the chain; `Committed` or `CommitFailed` follows.
    CommitCheckpoint(CommitRequest),
    /// Read the newest checkpoint to its last byte, and older ones until one is whole: workers begin at that one from now on.
    /// `CheckpointFound` or `CheckpointsUnreadable` follows.
    FindCheckpoint,
    /// Turn the detections of a validation into its report; `ReportMade` or `ReportFailed` follows.
    ComputeReport {
        /// The generation that has validated.
        generation: Generation,
        /// Steps trained before it.
        step: Step,
    },
    /// Kill one worker process that hangs or was given up.
    KillWorker {
        /// Its agent.
        agent: AgentId,
        /// Which.
        worker: WorkerId,
    },
    /// Kill every worker process that is left.
    KillWorkers,
    /// The run is over: leave the loop.
    Finish(Outcome),
}
