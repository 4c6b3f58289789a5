//! The messages of a worker.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use wire::worker_message::Body;

use super::malformed::{address, same_version};
use super::{Identity, Malformed, PROTOCOL_VERSION, SavedStage, Stage, wire};
use crate::ids::{Epoch, LaneId, Step};
use crate::units::{Seconds, TimeSegment};

/// The first message of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerHello {
    /// Index of the worker in the run, from 0.
    pub index: u32,
    /// Its process id.
    pub pid: u32,
    /// Address on which its collective listens.
    pub ring_address: SocketAddr,
}

/// A message of a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerMessage {
    /// The first message.
    Hello(WorkerHello),
    /// Any later message.
    Report {
        /// The generation and rank it belongs to.
        identity: Identity,
        /// Its content.
        report: WorkerReport,
    },
}

/// The content of a worker's message.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerReport {
    /// The state of the generation is loaded and all peers are reached.
    Ready,
    /// Progress of the stage.
    Progress(Progress),
    /// This rank's parts of a checkpoint are durable.
    PartsSaved(SavedParts),
    /// All detections of one video.
    Detections(VideoDetections),
    /// This rank has sent the detections of all its videos.
    ValidationDone {
        /// Steps trained before the validation.
        step: Step,
    },
    /// A problem that does not end the run, for the user.
    Warning(String),
    /// A collective operation failed.
    CollectiveFailed {
        /// The error of the collective.
        message: String,
    },
    /// The worker cannot continue.
    Failed {
        /// The cause, as a sentence.
        message: String,
        /// Advice for the user.
        hint: Option<String>,
        /// Scope of the failure.
        scope: FailureScope,
        /// The last lines of the worker's log; filled in by its agent.
        log: Vec<String>,
    },
    /// The worker has left its generation and changes nothing of the run until the next one.
    Left {
        /// The state it holds; absent: it must load a checkpoint.
        kept: Option<Kept>,
    },
    /// The worker has finished its work in the generation.
    Finished {
        /// Steps trained.
        step: Step,
        /// Why it finished.
        ending: Ending,
    },
}

/// Progress of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// Units done so far.
    pub done: u64,
    /// Units of the stage.
    pub total: u64,
    /// Epoch of the unit (train only).
    pub epoch: Epoch,
    /// Loss of the step over all ranks; absent in stages without a loss.
    pub loss: Option<f64>,
    /// Further metrics by name; `docs/PROTOCOL.md` lists names and units.
    pub numbers: BTreeMap<String, f64>,
    /// Time since the stage began in this process.
    pub elapsed: Seconds,
}

/// The parts that a rank has made durable for a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedParts {
    /// The stage that was running.
    pub stage: SavedStage,
    /// Steps of that stage done.
    pub step: Step,
    /// Average mAP of the validation at the same step, if one ran.
    pub average_map: Option<f64>,
    /// The rank's entries of the manifest.
    pub parts: serde_json::Value,
}

/// One detected action of a video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Position of the label in the data set's list.
    pub label: u32,
    /// The action's extent in the video.
    pub segment: TimeSegment,
    /// Confidence of the detector, from 0 to 1.
    pub score: f64,
}

/// All detections of one video.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoDetections {
    /// Steps trained before the validation.
    pub step: Step,
    /// Name of the video in the data set.
    pub video: String,
    /// The detections.
    pub detections: Vec<Detection>,
}

/// The state that a worker holds between two generations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Stage of its parameters, statistics, optimizer and counters.
    pub stage: SavedStage,
    /// Committed steps of that stage.
    pub step: Step,
    /// Lanes whose memory it holds.
    pub lanes: Vec<LaneId>,
    /// Lanes of other workers whose write-backs it holds as a copy.
    pub copies: Vec<LaneId>,
}

/// Why a worker has finished its work in a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The last epoch is trained and validated.
    Completed,
    /// All ranks agreed to stop, and have saved.
    Stopped,
}

/// Scope of a worker's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureScope {
    /// This worker: a replacement may succeed.
    Worker,
    /// The checkpoint that its generation resumed from: an older one may be intact.
    Checkpoint,
    /// The run: every worker would fail, but a later start may succeed.
    Run,
    /// Every start of the run: exit code 78.
    Forever,
}

impl From<WorkerHello> for wire::WorkerHello {
    fn from(hello: WorkerHello) -> Self {
        let WorkerHello { index, pid, ring_address } = hello;
        Self { protocol: PROTOCOL_VERSION, index, pid, ring_address: ring_address.to_string() }
    }
}

impl TryFrom<wire::WorkerHello> for WorkerHello {
    type Error = Malformed;

    fn try_from(hello: wire::WorkerHello) -> Result<Self, Malformed> {
        same_version("the worker", hello.protocol)?;
        let ring_address = address("hello.ring_address", &hello.ring_address)?;
        Ok(Self { index: hello.index, pid: hello.pid, ring_address })
    }
}

impl From<WorkerMessage> for wire::WorkerMessage {
    fn from(message: WorkerMessage) -> Self {
        let (identity, body) = match message {
            WorkerMessage::Hello(hello) => (Identity::default(), Body::Hello(hello.into())),
            WorkerMessage::Report { identity, report } => (identity, report.into()),
        };
        Self { identity: Some(identity.into()), body: Some(body) }
    }
}

impl TryFrom<wire::WorkerMessage> for WorkerMessage {
    type Error = Malformed;

    fn try_from(message: wire::WorkerMessage) -> Result<Self, Malformed> {
        let identity: Identity = message.identity.ok_or(Malformed::Missing("identity"))?.into();
        let report = match message.body.ok_or(Malformed::Missing("worker_message.body"))? {
            Body::Hello(hello) => return Ok(Self::Hello(hello.try_into()?)),
            Body::Ready(_) => WorkerReport::Ready,
            Body::Progress(progress) => WorkerReport::Progress(progress.try_into()?),
            Body::PartsSaved(saved) => WorkerReport::PartsSaved(saved.try_into()?),
            Body::Detections(found) => WorkerReport::Detections(found.try_into()?),
            Body::ValidationDone(done) => WorkerReport::ValidationDone { step: Step(done.step) },
            Body::Warning(warning) => WorkerReport::Warning(warning.text),
            Body::CollectiveFailed(failed) => WorkerReport::CollectiveFailed { message: failed.message },
            Body::Failed(wire::Failed { message, hint, scope, log }) => {
                WorkerReport::Failed { message, hint, scope: FailureScope::from_wire(scope)?, log }
            }
            Body::Left(left) => WorkerReport::Left { kept: left.kept.map(Kept::try_from).transpose()? },
            Body::Finished(finished) => WorkerReport::Finished {
                step: Step(finished.step),
                ending: if finished.stopped { Ending::Stopped } else { Ending::Completed },
            },
        };
        Ok(Self::Report { identity, report })
    }
}

impl From<WorkerReport> for Body {
    fn from(report: WorkerReport) -> Self {
        match report {
            WorkerReport::Ready => Self::Ready(wire::Ready {}),
            WorkerReport::Progress(progress) => Self::Progress(progress.into()),
            WorkerReport::PartsSaved(saved) => Self::PartsSaved(saved.into()),
            WorkerReport::Detections(found) => Self::Detections(found.into()),
            WorkerReport::ValidationDone { step } => {
                Self::ValidationDone(wire::ValidationDone { step: step.0 })
            }
            WorkerReport::Warning(text) => Self::Warning(wire::Warning { text }),
            WorkerReport::CollectiveFailed { message } => {
                Self::CollectiveFailed(wire::CollectiveFailed { message })
            }
            WorkerReport::Failed { message, hint, scope, log } => {
                Self::Failed(wire::Failed { message, hint, scope: scope.to_wire(), log })
            }
            WorkerReport::Left { kept } => Self::Left(wire::Left { kept: kept.map(Into::into) }),
            WorkerReport::Finished { step, ending } => {
                Self::Finished(wire::Finished { step: step.0, stopped: ending == Ending::Stopped })
            }
        }
    }
}

impl From<Progress> for wire::Progress {
    fn from(progress: Progress) -> Self {
        Self {
            stage: progress.stage.to_wire(),
            done: progress.done,
            total: progress.total,
            epoch: progress.epoch.0,
            loss: progress.loss,
            numbers: progress.numbers,
            elapsed_seconds: progress.elapsed.0,
        }
    }
}

impl TryFrom<wire::Progress> for Progress {
    type Error = Malformed;

    fn try_from(progress: wire::Progress) -> Result<Self, Malformed> {
        Ok(Self {
            stage: Stage::from_wire(progress.stage)?,
            done: progress.done,
            total: progress.total,
            epoch: Epoch(progress.epoch),
            loss: progress.loss,
            numbers: progress.numbers,
            elapsed: Seconds(progress.elapsed_seconds),
        })
    }
}

impl From<SavedParts> for wire::PartsSaved {
    fn from(saved: SavedParts) -> Self {
        Self {
            stage: saved.stage.to_wire(),
            step: saved.step.0,
            average_map: saved.average_map,
            parts_json: saved.parts.to_string(),
        }
    }
}

impl TryFrom<wire::PartsSaved> for SavedParts {
    type Error = Malformed;

    fn try_from(saved: wire::PartsSaved) -> Result<Self, Malformed> {
        let parts = serde_json::from_str(&saved.parts_json).map_err(|error| Malformed::Field {
            field: "parts_saved.parts_json",
            value: error.to_string(),
            expected: "JSON",
        })?;
        Ok(Self {
            stage: SavedStage::from_wire(saved.stage)?,
            step: Step(saved.step),
            average_map: saved.average_map,
            parts,
        })
    }
}

impl From<VideoDetections> for wire::Detections {
    fn from(found: VideoDetections) -> Self {
        let detections = found.detections.into_iter().map(|detection| wire::Detection {
            label: detection.label,
            start_seconds: detection.segment.start.0,
            end_seconds: detection.segment.end.0,
            score: detection.score,
        });
        Self { step: found.step.0, video: found.video, detections: detections.collect() }
    }
}

impl TryFrom<wire::Detections> for VideoDetections {
    type Error = Malformed;

    fn try_from(found: wire::Detections) -> Result<Self, Malformed> {
        let detections = found.detections.into_iter().map(Detection::try_from).collect::<Result<_, _>>()?;
        Ok(Self { step: Step(found.step), video: found.video, detections })
    }
}

impl TryFrom<wire::Detection> for Detection {
    type Error = Malformed;

    /// Rejects numbers that are not finite and segments that end before they start: both would corrupt the report.
    fn try_from(found: wire::Detection) -> Result<Self, Malformed> {
        let wire::Detection { label, start_seconds, end_seconds, score } = found;
        let finite = [score, start_seconds, end_seconds].into_iter().all(f64::is_finite);
        if !finite || start_seconds > end_seconds {
            return Err(Malformed::Field {
                field: "detections.detections",
                value: format!("{start_seconds} s to {end_seconds} s with score {score}"),
                expected: "a segment with a score",
            });
        }
        let segment = TimeSegment { start: Seconds(start_seconds), end: Seconds(end_seconds) };
        Ok(Self { label, segment, score })
    }
}

impl From<Kept> for wire::Kept {
    fn from(kept: Kept) -> Self {
        let numbers = |lanes: Vec<LaneId>| lanes.into_iter().map(|lane| lane.0).collect();
        Self {
            stage: kept.stage.to_wire(),
            step: kept.step.0,
            lanes: numbers(kept.lanes),
            copies: numbers(kept.copies),
        }
    }
}

impl TryFrom<wire::Kept> for Kept {
    type Error = Malformed;

    fn try_from(kept: wire::Kept) -> Result<Self, Malformed> {
        Ok(Self {
            stage: SavedStage::from_wire(kept.stage)?,
            step: Step(kept.step),
            lanes: kept.lanes.into_iter().map(LaneId).collect(),
            copies: kept.copies.into_iter().map(LaneId).collect(),
        })
    }
}

impl FailureScope {
    fn to_wire(self) -> i32 {
        let scope = match self {
            Self::Worker => wire::FailureScope::Worker,
            Self::Checkpoint => wire::FailureScope::Checkpoint,
            Self::Run => wire::FailureScope::Run,
            Self::Forever => wire::FailureScope::Forever,
        };
        scope.into()
    }

    fn from_wire(number: i32) -> Result<Self, Malformed> {
        match wire::FailureScope::try_from(number) {
            Ok(wire::FailureScope::Worker) => Ok(Self::Worker),
            Ok(wire::FailureScope::Checkpoint) => Ok(Self::Checkpoint),
            Ok(wire::FailureScope::Run) => Ok(Self::Run),
            Ok(wire::FailureScope::Forever) => Ok(Self::Forever),
            Ok(wire::FailureScope::Unspecified) | Err(_) => Err(Malformed::Field {
                field: "failed.scope",
                value: number.to_string(),
                expected: "the scope of a failure",
            }),
        }
    }
}
