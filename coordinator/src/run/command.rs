//! The commands that the engine gives; the list is closed. The driver executes them in order.

use longtake_shared::ids::{AgentId, Generation, Incarnation, LaneId, Step, WorkerId};
use longtake_shared::protocol::{Order, SavedStage};

use super::record::Record;
use crate::updates::{Outcome, RunUpdate};

/// A checkpoint whose parts are all durable.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitRequest {
    /// The coordinator start that commits it.
    pub incarnation: Incarnation,
    /// The generation that saved it.
    pub generation: Generation,
    /// The stage that was running.
    pub stage: SavedStage,
    /// Steps of that stage done.
    pub step: Step,
    /// Average mAP of the validation at the same step, if one ran.
    pub average_map: Option<f64>,
    /// The lanes of each rank.
    pub lanes: Vec<Vec<LaneId>>,
    /// The manifest entries of each rank.
    pub parts: Vec<serde_json::Value>,
}

/// A command of the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Make a record durable before the next command is executed.
    Journal(Record),
    /// Send an update to the observers of the run.
    Announce(RunUpdate),
    /// Start a worker process through its agent.
    StartWorker {
        /// The agent.
        agent: AgentId,
        /// Id of the new process.
        worker: WorkerId,
        /// Its index in the run, from 0.
        index: usize,
    },
    /// Send an order to workers.
    Tell {
        /// The generation it belongs to; 0 before the first.
        generation: Generation,
        /// The workers.
        workers: Vec<WorkerId>,
        /// The order.
        order: Order,
    },
    /// Commit a checkpoint; `Committed` or `CommitFailed` follows.
    CommitCheckpoint(CommitRequest),
    /// Verify every byte of the newest checkpoint, and of older ones until one is intact; workers then resume from that one.
    /// `CheckpointFound` or `CheckpointsUnreadable` follows.
    FindCheckpoint,
    /// Compute the report of a validation; `ReportMade` or `ReportFailed` follows.
    ComputeReport {
        /// The generation that ran the validation.
        generation: Generation,
        /// Steps trained before the validation.
        step: Step,
    },
    /// Kill one worker process that hangs or was declared lost.
    KillWorker {
        /// Its agent.
        agent: AgentId,
        /// The worker.
        worker: WorkerId,
    },
    /// Kill every remaining worker process.
    KillWorkers,
    /// The run is over: leave the driver loop.
    Finish(Outcome),
}
