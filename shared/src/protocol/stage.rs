//! The stages of a run, and the two of them that a checkpoint can be taken in.

use serde::{Deserialize, Serialize};

use super::{Malformed, wire};

/// The stages of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The backbone is trained as a classifier of trimmed clips.
    Pretrain,
    /// The long memory is filled with extracted features.
    Memory,
    /// The detector is trained.
    Train,
    /// The detector is evaluated.
    Validate,
}

/// The stages that a checkpoint can be taken in, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedStage {
    /// The backbone is trained as a classifier of trimmed clips.
    Pretrain,
    /// The detector is trained.
    Train,
}

impl Stage {
    /// Name of the stage in JSON.
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

impl From<SavedStage> for Stage {
    fn from(stage: SavedStage) -> Self {
        match stage {
            SavedStage::Pretrain => Self::Pretrain,
            SavedStage::Train => Self::Train,
        }
    }
}

impl From<Stage> for wire::Stage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Pretrain => Self::Pretrain,
            Stage::Memory => Self::Memory,
            Stage::Train => Self::Train,
            Stage::Validate => Self::Validate,
        }
    }
}

impl Stage {
    pub(super) fn to_wire(self) -> i32 {
        wire::Stage::from(self).into()
    }

    pub(super) fn from_wire(number: i32) -> Result<Self, Malformed> {
        match wire::Stage::try_from(number) {
            Ok(wire::Stage::Pretrain) => Ok(Self::Pretrain),
            Ok(wire::Stage::Memory) => Ok(Self::Memory),
            Ok(wire::Stage::Train) => Ok(Self::Train),
            Ok(wire::Stage::Validate) => Ok(Self::Validate),
            Ok(wire::Stage::Unspecified) | Err(_) => {
                Err(Malformed::Field { field: "stage", value: number.to_string(), expected: "a stage" })
            }
        }
    }
}

impl SavedStage {
    pub(super) fn to_wire(self) -> i32 {
        Stage::from(self).to_wire()
    }

    pub(super) fn from_wire(number: i32) -> Result<Self, Malformed> {
        match Stage::from_wire(number)? {
            Stage::Pretrain => Ok(Self::Pretrain),
            Stage::Train => Ok(Self::Train),
            stage @ (Stage::Memory | Stage::Validate) => Err(Malformed::Field {
                field: "stage",
                value: stage.name().to_owned(),
                expected: "a stage that a checkpoint can be taken in",
            }),
        }
    }
}
