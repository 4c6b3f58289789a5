//! What a run tells whoever watches it: the terminal, `status`, metrics.jsonl. Events and numbers, no text for people.

use longtake_shared::hint::ExitCode;
use longtake_shared::ids::{Epoch, Generation, Rank, Step};
pub use longtake_shared::protocol::{Progress, Stage};
use serde::{Deserialize, Serialize};

use crate::run::incident::Incident;

/// One thing that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunUpdate {
    /// Workers are being waited for.
    Gathering {
        /// Workers that have come.
        present: usize,
        /// Workers that are needed.
        needed: usize,
    },
    /// Too few workers are there, so the run waits.
    Waiting {
        /// Workers that are there.
        present: usize,
        /// Workers without which it waits.
        needed: usize,
        /// Indices of those that are wanted and not there.
        missing: Vec<usize>,
    },
    /// A generation is over before its time, and the next one forms.
    Recovered {
        /// What ended it; nothing where all agreed to let others join.
        incident: Option<Incident>,
        /// The next one.
        generation: Generation,
        /// Its world size.
        world: usize,
        /// Steps of the stage that it goes on after.
        goes_on_at: Step,
    },
    /// A generation has formed and its workers have loaded their state.
    Formed {
        /// Its number.
        generation: Generation,
        /// Its world size.
        world: usize,
    },
    /// A stage began, or goes on where it had stopped.
    Stage {
        /// Which.
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
        /// Its place in the chain.
        sequence: u64,
    },
    /// Something a user should know that does not end the run.
    Warning {
        /// As a sentence.
        message: String,
    },
    /// The run is over.
    Finished {
        /// Why.
        outcome: Outcome,
    },
}

/// Why a run is over.
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
        /// What to do about it.
        hint: Option<String>,
        /// Whose it was, where it was a worker's.
        rank: Option<Rank>,
        /// The last lines of that worker's log.
        log: Vec<String>,
        /// Whether no restart can mend it: exit code 78.
        never_restart: bool,
        /// The newest committed checkpoint's step, if any: `longtake train --resume` goes on from there.
        resumable_at: Option<Step>,
    },
}

impl Outcome {
    /// What a process of the run ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Done => ExitCode::Done,
            Self::Preempted { .. } => ExitCode::Preempted,
            Self::Failed { never_restart: true, .. } => ExitCode::NeverRestart,
            Self::Failed { .. } => ExitCode::Failed,
        }
    }
}
