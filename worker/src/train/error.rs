//! Why a generation does not come to its end on this worker.

use longtake_shared::checkpoint::Mismatches;
use longtake_shared::config::ConfigError;
use longtake_shared::dataset::DatasetError;
use longtake_shared::hint::Hint;
use longtake_shared::ids::Step;
use longtake_shared::lanes::TooManyLanes;
use longtake_shared::objects::LocationError;
use longtake_shared::protocol::SavedStage;

use crate::checkpoint::{LoadError as CheckpointLoadError, SaveError};
use crate::collective::CollectiveError;
use crate::control::{ControlError, FailureScope};
use crate::data::clip::ClipError;
use crate::data::loader::LoadError;
use crate::data::prefetch::PrefetchError;
use crate::data::video::VideoError;
use crate::infer::video::DetectError;
use crate::model::backbone::import::ImportError;
use crate::model::heads::HeadError;
use crate::model::memory::MemoryError;
use crate::model::norm::UnknownLayer;
use crate::optim::{OptimError, UnknownPrefix};
use crate::tensors::TensorFileError;
use crate::train::run::damage::{Cause, TooMuchDamage};
use crate::train::step::StepError;
use crate::train::step::gradient_sync::AgreeError;
use crate::train::step::learner::RestoreError;

/// Why a generation does not come to its end on this worker.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The annotations cannot be used.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// More lanes than videos.
    #[error(transparent)]
    Lanes(#[from] TooManyLanes),
    /// More videos cannot be read than the run may leave out.
    #[error(transparent)]
    TooMuchDamage(#[from] TooMuchDamage),
    /// A video that the run cannot do without cannot be read.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// Samples no longer come.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A validation video has no detections.
    #[error(transparent)]
    Detect(DetectError),
    /// The localizer cannot take the windows.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The settings freeze parameters that the model does not have.
    #[error(transparent)]
    UnknownPrefix(#[from] UnknownPrefix),
    /// Running statistics of a layer that the model does not have.
    #[error(transparent)]
    UnknownLayer(#[from] UnknownLayer),
    /// The starting weights do not fit.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The long memory cannot be read or written.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A checkpoint cannot be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// Nothing can be read from the object store of the run.
    #[error(transparent)]
    Archive(#[from] CheckpointLoadError),
    /// A checkpoint that the coordinator named is damaged or missing, or its store cannot be reached from here.
    #[error("the checkpoint of {step} cannot be used")]
    Checkpoint {
        /// Steps that it contains.
        step: Step,
        /// Why.
        #[source]
        source: Box<CheckpointLoadError>,
    },
    /// What learns cannot be handed over to another rank.
    #[error("the state that a rank handed over cannot be read")]
    Handover(#[source] serde_json::Error),
    /// The generation goes on from a step that this worker was said to hold.
    #[error("this worker does not hold {step}, from which its generation goes on")]
    HoldsOther {
        /// The step.
        step: Step,
    },
    /// A file of tensors cannot be made or read.
    #[error(transparent)]
    TensorFile(#[from] TensorFileError),
    /// The object store of the run cannot be opened.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// Frames do not fit the settings.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// The threads that read ahead stopped.
    #[error(transparent)]
    Prefetch(#[from] PrefetchError),
    /// The threads that read ahead came to their end too early.
    #[error("no samples came for {step}")]
    OutOfSamples {
        /// The step.
        step: Step,
    },
    /// A checkpoint does not fit the model.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A checkpoint was made under other conditions.
    #[error(transparent)]
    Conditions(#[from] Mismatches),
    /// The manifest that the coordinator handed out is none.
    #[error("the manifest to resume from cannot be read")]
    Manifest(#[source] serde_json::Error),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] OptimError),
    /// Peers cannot be reached, or the generation was aborted.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// The agent cannot be reached.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Ranks hold different parameters.
    #[error("the parameters of this rank differ from those of the others at {step}")]
    Diverged {
        /// When it was found.
        step: Step,
    },
    /// Loss or gradient were not finite too often in a row.
    #[error("loss or gradient were not finite in {in_a_row} steps in a row, up to {step}")]
    NotFinite {
        /// The stage.
        stage: SavedStage,
        /// Steps taken.
        step: Step,
        /// How many in a row.
        in_a_row: u64,
    },
}

impl From<AgreeError> for TrainError {
    fn from(error: AgreeError) -> Self {
        match error {
            AgreeError::Collective(error) => Self::Collective(error),
            AgreeError::Device(error) => Self::Device(error),
        }
    }
}

impl From<StepError> for TrainError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Head(error) => Self::Head(error),
            StepError::Collective(error) => Self::Collective(error),
        }
    }
}

impl From<DetectError> for TrainError {
    fn from(error: DetectError) -> Self {
        match error {
            DetectError::Collective(error) => Self::Collective(error),
            error => Self::Detect(error),
        }
    }
}

impl TrainError {
    /// Whom it concerns: settings and data that no start mends, what would fail on any worker, a checkpoint, or this worker
    /// alone.
    pub fn scope(&self) -> FailureScope {
        match self {
            Self::Config(_)
            | Self::Dataset(_)
            | Self::Lanes(_)
            | Self::Video(_)
            | Self::Detect(_)
            | Self::Clip(_)
            | Self::Location(_)
            | Self::Head(_)
            | Self::UnknownPrefix(_)
            | Self::UnknownLayer(_)
            | Self::Import(_)
            | Self::Restore(_)
            | Self::Conditions(_)
            | Self::Manifest(_)
            | Self::TooMuchDamage(TooMuchDamage { cause: Cause::File, .. })
            | Self::NotFinite { .. } => FailureScope::Forever,
            // A full disk or a store that cannot be reached meets every worker, and so does a video that cannot be read. Ranks
            // that differ do not know which of them is right.
            Self::Save(SaveError::Store(_) | SaveError::Memory(_))
            | Self::Memory(MemoryError::Full { .. })
            | Self::Load(_)
            | Self::TooMuchDamage(TooMuchDamage { cause: Cause::Storage, .. })
            | Self::Diverged { .. } => FailureScope::Run,
            Self::Checkpoint { .. } => FailureScope::Checkpoint,
            Self::Save(
                SaveError::Busy | SaveError::Thread(_) | SaveError::Stopped | SaveError::Tensors(_),
            )
            | Self::Memory(_)
            | Self::Archive(_)
            | Self::Handover(_)
            | Self::HoldsOther { .. }
            | Self::TensorFile(_)
            | Self::Prefetch(_)
            | Self::OutOfSamples { .. }
            | Self::Device(_)
            | Self::Collective(_)
            | Self::Control(_) => FailureScope::Worker,
        }
    }
}

impl Hint for TrainError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Dataset(error) => error.hint(),
            Self::Lanes(error) => error.hint(),
            Self::TooMuchDamage(error) => error.hint(),
            Self::Video(error) => error.hint(),
            Self::Load(error) => error.hint(),
            Self::Detect(error) => error.hint(),
            Self::Head(error) => error.hint(),
            Self::UnknownPrefix(_) => Some("lower `model.backbone.frozen_stages`".into()),
            Self::Import(error) => error.hint(),
            Self::Memory(error) => error.hint(),
            Self::Save(error) => error.hint(),
            Self::Archive(source) => source.hint(),
            Self::Checkpoint { source, .. } => source.hint(),
            Self::UnknownLayer(_)
            | Self::Handover(_)
            | Self::HoldsOther { .. }
            | Self::OutOfSamples { .. } => None,
            Self::TensorFile(error) => error.hint(),
            Self::Location(error) => error.hint(),
            Self::Clip(error) => error.hint(),
            Self::Prefetch(error) => error.hint(),
            Self::Conditions(error) => error.hint(),
            Self::Device(error) => error.hint(),
            Self::Collective(error) => error.hint(),
            Self::Control(error) => error.hint(),
            Self::Restore(_) | Self::Manifest(_) => {
                Some("resume with the configuration and the version that saved the checkpoint".into())
            }
            Self::Diverged { .. } => {
                Some("resume from the last checkpoint; if it comes again, a device computes wrongly".into())
            }
            Self::NotFinite { stage, .. } => {
                let optim = match stage {
                    SavedStage::Pretrain => "pretrain.optim",
                    SavedStage::Train => "optim",
                };
                Some(format!(
                    "lower `{optim}.learning_rate`, lengthen `{optim}.schedule.warmup_steps` or set `{optim}.clip_norm`"
                ))
            }
        }
    }
}
