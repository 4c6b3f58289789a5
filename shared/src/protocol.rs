//! The messages between operator, coordinator, agent and worker: what they mean here, what they are on the wire in [`crate::protocol::wire`].
//!
//! Workers speak only to their agent, agents to the coordinator. Every message carries (run, incarnation, generation,
//! rank); a receiver drops what is older than what it knows. `docs/PROTOCOL.md` tells who may send what when.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Generation, Incarnation, LaneId, Rank, RunId, Step};
use crate::units::Seconds;

/// What a worker did last, in a file that outlives it.
pub mod flight;

/// What a worker does within a step.
pub mod stamp;

/// Generated code: the messages as they travel.
pub mod wire;

/// Rises with each incompatible change of `proto/longtake.proto`.
pub const PROTOCOL_VERSION: u32 = 3;

/// Bytes of the largest message that is accepted: a manifest of a large run is a few megabytes of JSON.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Bytes in flight on one link before its sender waits.
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// The window of a connection, which has one link only. It is this much larger because h2 closes a connection whose small
/// frames, waiting to be read, cost more overhead than half of this window (256 bytes less their payload each): a link
/// full of the smallest messages must stay below that, so that a slow reader slows its sender and never loses it.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// No message travels in a smaller frame: five bytes of gRPC, and an identity.
const SMALLEST_FRAME_BYTES: u32 = 9;

const _: () = assert!(STREAM_WINDOW_BYTES / SMALLEST_FRAME_BYTES * 256 < CONNECTION_WINDOW_BYTES / 2);

/// The environment variable in which an agent tells its workers its own process id.
pub const AGENT_PID_VARIABLE: &str = "LONGTAKE_AGENT_PID";

/// The stages of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The backbone learns to classify trimmed clips.
    Pretrain,
    /// The memory is filled by extraction.
    Memory,
    /// The detector trains.
    Train,
    /// The detector is evaluated.
    Validate,
}

impl Stage {
    /// As it is written in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pretrain => "pretrain",
            Self::Memory => "memory",
            Self::Train => "train",
            Self::Validate => "validate",
        }
    }

    /// Whether ranks share its units, so that the run has done the sum of what they have; elsewhere all ranks take each step.
    pub fn is_shared_out(self) -> bool {
        matches!(self, Self::Memory | Self::Validate)
    }
}

/// How far a stage has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Which stage.
    pub stage: Stage,
    /// Units done so far.
    pub done: u64,
    /// Units of the stage.
    pub total: u64,
    /// Epoch of the unit (train only).
    pub epoch: Epoch,
    /// Loss of the step over all ranks; absent where the stage has none.
    pub loss: Option<f64>,
    /// Further numbers by name: `class_loss`, `regression_loss`, `positives`, `samples`, `sample_ids` (which samples they
    /// are), `gradient_norm`, `learning_rate`, `clips_per_second`, `mean_age` (steps), `absent_rows`, `damaged_rows`,
    /// `skipped_samples`, `damaged_videos`, `non_finite`.
    pub numbers: BTreeMap<String, f64>,
    /// Since the stage began in this process.
    pub elapsed: Seconds,
}

/// What a worker is in a generation, and everything it needs to take part.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The run.
    pub run: RunId,
    /// Which start of the coordinator formed the generation.
    pub incarnation: Incarnation,
    /// The generation.
    pub generation: Generation,
    /// This worker's rank in it.
    pub rank: Rank,
    /// Ranks in it.
    pub world: usize,
    /// Where each rank's collective listens.
    pub peers: Vec<SocketAddr>,
    /// The lanes of each rank.
    pub lanes: Vec<Vec<LaneId>>,
    /// The run's folder.
    pub run_folder: PathBuf,
    /// The resolved configuration.
    pub config_json: String,
    /// The newest checkpoint's manifest; absent: there is none.
    pub resume: Option<serde_json::Value>,
    /// How the members go on from what they hold; absent: everyone begins at `resume`, or at the start.
    pub carried: Option<Carried>,
}

/// The members of a generation go on from what they hold.
///
/// Memory of a lane that its owner does not hold and that is in no move comes from the newest checkpoint, or is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The stage they are in.
    pub stage: Stage,
    /// Steps of it that the newest member has committed.
    pub step: Step,
    /// The lowest rank that has these.
    pub holder: Rank,
    /// Ranks that have not, and take parameters, statistics, optimizer and counters from the holder.
    pub behind: Vec<Rank>,
    /// Lanes that change hands, by lane.
    pub moves: Vec<LaneMove>,
}

/// A lane whose memory its new owner takes from another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneMove {
    /// The lane.
    pub lane: LaneId,
    /// Who has its rows.
    pub from: Rank,
    /// Who has them has only a copy of write-backs: what these do not cover comes from the newest checkpoint, or is absent.
    pub copy: bool,
}

/// What a worker holds between two generations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The stage whose parameters, statistics, optimizer and counters it holds.
    pub stage: Stage,
    /// Steps of it that are committed.
    pub step: Step,
    /// Lanes whose memory it holds.
    pub lanes: Vec<LaneId>,
    /// Lanes of others of whose write-backs it holds a copy.
    pub copies: Vec<LaneId>,
}

/// What a worker is told to do next, in the order it was decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Directive {
    /// A generation is formed: load its state, reach its peers, say ready.
    Form(Box<Assignment>),
    /// Every rank is ready: go.
    Train {
        /// Which generation.
        generation: Generation,
    },
    /// The generation is over; its collectives have been aborted.
    Abort {
        /// Which generation.
        generation: Generation,
        /// Why, as a sentence.
        reason: String,
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
    /// There is nothing more to do: end the process.
    Shutdown,
}

/// Wishes that the ranks agree on at their next step boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flags {
    /// Save and end.
    pub stop: bool,
    /// Save and go on.
    pub checkpoint: bool,
    /// Leave the generation and keep everything: others are waiting to join.
    pub reconfigure: bool,
}

/// One detected action of a video.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Position of the label in the data set's list.
    pub label: u32,
    /// Where it starts.
    pub start: Seconds,
    /// Where it ends.
    pub end: Seconds,
    /// How sure the detector is, from 0 to 1.
    pub score: f64,
}

/// What a rank has made durable for the checkpoint of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedParts {
    /// The stage that was running.
    pub stage: Stage,
    /// Steps of that stage done.
    pub step: Step,
    /// Average mAP of the validation of the same step, where there was one.
    pub average_map: Option<f64>,
    /// The rank's entries of the manifest.
    pub parts: serde_json::Value,
}

/// Why a worker has nothing more to do in its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The last epoch is trained and validated.
    Completed,
    /// All ranks agreed to stop, and have saved.
    Stopped,
}

/// Whom a worker's failure concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureScope {
    /// This worker: another in its place may do better.
    Worker,
    /// The checkpoint that its generation goes on from: an older one may be whole.
    Checkpoint,
    /// The run: any worker would fail, but a later start may do better.
    Run,
    /// Every start of the run: exit code 78.
    Forever,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl std::fmt::Display for ExitCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}
