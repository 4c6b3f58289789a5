//! The updates of a run for its observers: terminal, status and metrics.jsonl. They are events and numbers, not text.

use longtake_shared::hint::ExitCode;
use longtake_shared::ids::{Epoch, Generation, Rank, Step};
pub use longtake_shared::protocol::{Progress, Stage};
use serde::{Deserialize, Serialize};

mod incident;

pub use incident::{Incident, Nearness};

/// An update of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunUpdate {
    /// The run waits for its workers.
    Gathering {
        /// Connected workers.
        present: usize,
        /// Required workers.
        needed: usize,
    },
    /// Too few workers are connected, so the run waits.
    Waiting {
        /// Connected workers.
        present: usize,
        /// Fewest workers that a generation may have.
        needed: usize,
        /// Indices of the missing workers.
        missing: Vec<usize>,
    },
    /// A generation ended early, and the next one forms.
    Recovered {
        /// The incident that ended it; absent if all agreed to let waiting workers join.
        incident: Option<Incident>,
        /// Number of the next one.
        generation: Generation,
        /// Its world size.
        world: usize,
        /// Steps of the stage done before it.
        goes_on_at: Step,
    },
    /// A generation has formed and its workers have loaded their state.
    Formed {
        /// Its number.
        generation: Generation,
        /// Its world size.
        world: usize,
    },
    /// A stage began, or continues.
    Stage {
        /// The stage.
        stage: Stage,
        /// Work units of the stage (steps, or videos).
        total: u64,
        /// Units already done.
        done: u64,
    },
    /// A unit of work was done.
    Progress(Progress),
    /// A validation has ended.
    Validated {
        /// Steps trained before it.
        step: Step,
        /// Epochs trained before it.
        epoch: Epoch,
        /// Mean AP over classes, then over tIoU thresholds.
        average_map: f64,
        /// Whether no earlier validation was better.
        best: bool,
        /// The whole report, as `longtake_shared::metrics` serialises it.
        report: serde_json::Value,
    },
    /// A checkpoint is in the chain.
    Saved {
        /// Steps trained before it.
        step: Step,
        /// Position in the chain.
        sequence: u64,
    },
    /// A problem that does not end the run.
    Warning {
        /// The problem, as a sentence.
        message: String,
    },
    /// The run is over.
    Finished {
        /// Its outcome.
        outcome: Outcome,
    },
}

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The last epoch is trained and validated.
    Done,
    /// Stopped on request, saved: exit code 75.
    Preempted {
        /// Steps trained.
        step: Step,
    },
    /// A worker was lost or failed.
    Failed {
        /// The first cause, as a sentence.
        cause: String,
        /// Advice for the user.
        hint: Option<String>,
        /// Rank of the worker that caused it, if any.
        rank: Option<Rank>,
        /// The last lines of that worker's log.
        log: Vec<String>,
        /// Whether no restart can resolve it: exit code 78.
        never_restart: bool,
        /// Step of the newest committed checkpoint, if any: `longtake train --resume` continues there.
        resumable_at: Option<Step>,
    },
}

impl Outcome {
    /// Exit code of the processes of the run.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Done => ExitCode::Done,
            Self::Preempted { .. } => ExitCode::Preempted,
            Self::Failed { never_restart: true, .. } => ExitCode::NeverRestart,
            Self::Failed { .. } => ExitCode::Failed,
        }
    }
}
