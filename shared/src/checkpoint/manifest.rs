//! The manifest: all that a bit-exact resume needs, beside the bytes of the parts that it names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Conditions, PartRef};
use crate::hint::Hint;
use crate::ids::{Generation, Incarnation, LaneId, Rank, RunId, Step, VideoIndex};
use crate::protocol::SavedStage;

/// Version of the manifest's layout that this build writes and reads.
pub const FORMAT: u32 = 1;

/// A checkpoint, less the bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this layout: [`FORMAT`].
    pub format: u32,
    /// Version of Longtake that wrote it.
    pub written_by: String,
    /// The run.
    pub run: RunId,
    /// Incarnation of the coordinator under which it was saved.
    pub incarnation: Incarnation,
    /// Membership under which it was saved.
    pub generation: Generation,
    /// What the run was doing.
    pub stage: SavedStage,
    /// Steps of the stage that are contained: training goes on with the step of this number.
    pub step: Step,
    /// Workers of the generation; a run may resume with another number.
    pub world_size: usize,
    /// Lanes by number: who held them and how far they were.
    pub lanes: Vec<LaneState>,
    /// What must be the same for the resumed run to be the same.
    pub conditions: Conditions,
    /// What was skipped so far.
    pub counters: Counters,
    /// What the optimizer knows beside its tensors.
    pub optimizer_state: OptimizerState,
    /// Parameters and buffers, as safetensors by their published names.
    pub model: PartRef,
    /// Momenta and other tensors of the optimizer, as safetensors.
    pub optimizer: PartRef,
    /// The long memory, by lane and by groups of its videos; sorted.
    pub memory: Vec<MemorySegment>,
    /// Best validation so far.
    pub best: Option<Best>,
    /// Latest metrics by name; finite numbers.
    pub metrics: BTreeMap<String, f64>,
}

/// One lane at the step boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneState {
    /// The lane.
    pub lane: LaneId,
    /// Who held it in the generation that saved.
    pub rank: Rank,
    /// Steps of the stage that the lane has been through, skipped samples included.
    pub cursor: u64,
}

/// What was skipped so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Samples that could not be read and had weight 0.
    pub skipped_samples: u64,
    /// Steps whose gradient was not finite, so that nothing was applied.
    pub non_finite_steps: u64,
    /// How many of those are the latest steps, without a finite one after them.
    pub non_finite_in_a_row: u64,
}

/// What an optimizer knows beside its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerState {
    /// Updates applied so far; less than the step where non-finite ones were skipped.
    pub updates: u64,
    /// Factor that the loss is multiplied by before the backward pass; 1 without mixed precision.
    pub loss_scale: f64,
    /// Running normalisers of losses by name.
    pub normalisers: BTreeMap<String, f64>,
}

impl Default for OptimizerState {
    fn default() -> Self {
        Self { updates: 0, loss_scale: 1.0, normalisers: BTreeMap::new() }
    }
}

/// Remembered rows of some videos of a lane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemorySegment {
    /// The lane.
    pub lane: LaneId,
    /// Its videos that the part holds, sorted.
    pub videos: Vec<VideoIndex>,
    /// Their rows with bits, writer's step and absences, as safetensors.
    pub part: PartRef,
}

/// A validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Step of the training stage at which it was measured.
    pub step: Step,
    /// Average mAP over the tIoU thresholds, 0 to 1.
    pub average_map: f64,
}

/// A manifest that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Written by another version.
    #[error("the manifest has format {found}, and this build reads format {FORMAT}")]
    Format {
        /// What it has.
        found: u64,
    },
    /// Not a manifest.
    #[error("the manifest cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// Some number would not come back as it is.
    #[error("the manifest of {step} holds a number that is not finite (loss scale, best or metrics)")]
    NotFinite {
        /// The step.
        step: Step,
    },
}

impl Hint for ManifestError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Format { .. } => Some("resume with the version of Longtake that saved it".into()),
            Self::Unreadable(_) => None,
            Self::NotFinite { .. } => Some("leave metrics out that have no value".into()),
        }
    }
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u64,
}

impl Manifest {
    /// As JSON; the same manifest always gives the same bytes.
    ///
    /// # Errors
    /// A number that is not finite: JSON has no way to write it.
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(ManifestError::Unreadable)?;
        bytes.push(b'\n');
        match Self::decode(&bytes) {
            Ok(back) if back == *self => Ok(bytes),
            _ => Err(ManifestError::NotFinite { step: self.step }),
        }
    }

    /// From JSON.
    ///
    /// # Errors
    /// Another format, an unknown or a missing field, not JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let format: FormatOnly = serde_json::from_slice(bytes).map_err(ManifestError::Unreadable)?;
        if format.format != u64::from(FORMAT) {
            return Err(ManifestError::Format { found: format.format });
        }
        serde_json::from_slice(bytes).map_err(ManifestError::Unreadable)
    }

    /// Every part, sorted, each once.
    pub fn parts(&self) -> Vec<PartRef> {
        let mut parts = vec![self.model, self.optimizer];
        parts.extend(self.memory.iter().map(|segment| segment.part));
        parts.sort();
        parts.dedup();
        parts
    }

    /// Folder of the checkpoint, below the run.
    pub fn folder(&self) -> String {
        let stage = match self.stage {
            SavedStage::Pretrain => "pretrain-",
            SavedStage::Train => "",
        };
        format!("checkpoints/{stage}{}-{}", self.step.0, self.generation)
    }

    /// Segments of the memory of some lanes.
    pub fn segments_of<'a>(&'a self, lanes: &'a [LaneId]) -> impl Iterator<Item = &'a MemorySegment> {
        self.memory.iter().filter(|segment| lanes.contains(&segment.lane))
    }
}
