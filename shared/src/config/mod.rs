//! One tree of typed settings. Layers: defaults < file < environment < `--set`; each value knows its source.

mod checkpoint;
mod cluster;
mod data;
mod error;
mod evaluation;
mod fingerprint;
mod kinds;
mod layers;
mod memory;
mod model;
mod optim;
#[cfg(test)]
mod published_tests;
mod resolve;
mod rules;
mod synth;
#[cfg(test)]
mod tests;
mod train;
mod validate;

use serde::{Deserialize, Serialize};

pub use checkpoint::CheckpointConfig;
pub use cluster::{ClusterConfig, Recovery};
pub use data::{AnnotationFormat, AugmentConfig, DataConfig, DecoderChoice, DisputedVideos};
pub use error::ConfigError;
pub use evaluation::{EvaluationConfig, NmsKind, PastEnd, SoftDecay};
pub use fingerprint::{binds_training, differences, misfits};
pub use kinds::{BackboneKind, DetectorKind};
pub use memory::{ClipSampler, MemoryConfig, MemoryDtype, MemoryInit, MemorySource, Replay};
pub use model::{
    BackboneConfig, BackboneInit, FeatureGeometry, HeadConfig, LossConfig, ModelConfig, NeckConfig,
    RegressionLoss, TEMPORAL_REDUCTION, Variant,
};
pub use optim::{OptimConfig, OptimizerKind, ScheduleConfig, ScheduleUnit, Warmup};
pub use resolve::{Resolved, load, load_without_file};
pub use rules::{BrokenRule, Range};
pub use synth::SynthConfig;
pub use train::{PretrainConfig, TrainConfig};

/// Everything a run is told. Each section is documented where it is defined.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// The run itself: its name, folder and seed.
    pub run: RunSection,
    /// Videos, annotations, and how a window of frames is cut from them.
    pub data: DataConfig,
    /// Where the data folder does not exist: the data set that is made there.
    pub synth: Option<SynthConfig>,
    /// Backbone, neck, head and loss.
    pub model: ModelConfig,
    /// Which clips pass through the backbone, and how the features of the others are remembered.
    pub memory: MemoryConfig,
    /// Optimizer and learning rate of the training stage.
    pub optim: OptimConfig,
    /// How long to train, on how many lanes.
    pub train: TrainConfig,
    /// Training of the backbone as a classifier of trimmed clips, before anything else.
    pub pretrain: PretrainConfig,
    /// From scores to detections, and from detections to mAP.
    pub evaluation: EvaluationConfig,
    /// Workers, leases, deadlines.
    pub cluster: ClusterConfig,
    /// Where, how often and how many checkpoints.
    pub checkpoint: CheckpointConfig,
}

impl RunConfig {
    /// Values of a gradient bucket.
    pub fn bucket_values(&self) -> usize {
        usize::try_from(self.cluster.bucket.0 / 4).unwrap_or(usize::MAX)
    }

    /// Shape of the features of a window.
    pub fn geometry(&self) -> FeatureGeometry {
        let (channels, stride) = (self.model.backbone.channels(), self.model.backbone.stride());
        FeatureGeometry { channels, stride, positions: self.data.window_frames / stride }
    }
}

/// The run itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSection {
    /// Name of the run; its folder is `<folder>/<name>`.
    pub name: String,
    /// Folder of all runs.
    pub folder: String,
    /// Seed of every random draw.
    pub seed: u64,
}

impl Default for RunSection {
    fn default() -> Self {
        Self { name: "run".into(), folder: "runs".into(), seed: 10 }
    }
}
