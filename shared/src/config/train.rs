//! How long to train, on how many lanes.

use serde::{Deserialize, Serialize};

use super::optim::{OptimConfig, OptimizerKind, ScheduleConfig, ScheduleUnit, Warmup};

/// The training stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Lanes: samples of a step over all workers.
    pub lanes: usize,
    /// Passes over the training videos.
    pub epochs: u64,
    /// Ends the stage earlier, after this many steps; 0: `epochs` alone decide.
    pub max_steps: u64,
    /// Epochs between two validations; 0: only at the end. The last epoch is always validated.
    pub validate_every: u64,
    /// Steps in a row whose loss or gradient is not finite that end the run.
    pub max_non_finite: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self { lanes: 16, epochs: 1000, max_steps: 0, validate_every: 100, max_non_finite: 20 }
    }
}

/// Training of the backbone as a classifier of trimmed clips, in place of Kinetics weights where none can be had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainConfig {
    /// Steps; 0 leaves the stage out.
    pub steps: u64,
    /// Clips of a step over all workers; a multiple of the lanes is not needed.
    pub batch: usize,
    /// Frames of a clip.
    pub clip_frames: usize,
    /// Fraction of clips that show no action.
    pub background: f64,
    /// Optimizer and learning rate of this stage.
    pub optim: OptimConfig,
}

impl Default for PretrainConfig {
    fn default() -> Self {
        Self {
            steps: 0,
            batch: 8,
            clip_frames: 16,
            background: 0.2,
            optim: OptimConfig {
                kind: OptimizerKind::AdamW,
                learning_rate: 1e-3,
                weight_decay: 0.05,
                backbone_multiplier: 1.0,
                clip_norm: 1.0,
                schedule: ScheduleConfig {
                    unit: ScheduleUnit::Step,
                    period: 0,
                    floor: 0.05,
                    warmup: Warmup::Linear,
                    warmup_steps: 30,
                    warmup_start: 0.0,
                },
                ..OptimConfig::default()
            },
        }
    }
}
