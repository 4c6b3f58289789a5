//! Optimizer and learning rate.

use serde::{Deserialize, Serialize};

/// Optimizer, its defaults those of PyTorch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimConfig {
    /// Which update rule.
    pub kind: OptimizerKind,
    /// Learning rate at the top of the schedule.
    pub learning_rate: f64,
    /// Weight decay: added to the gradient by SGD, decoupled in AdamW.
    pub weight_decay: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Decay of AdamW's first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of AdamW's second moment.
    pub epsilon: f64,
    /// The backbone's learning rate over the others'.
    pub backbone_multiplier: f64,
    /// Largest norm of the whole gradient; 0: not clipped.
    pub clip_norm: f64,
    /// Learning rate over time.
    pub schedule: ScheduleConfig,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Sgd,
            learning_rate: 0.01,
            weight_decay: 1e-4,
            momentum: 0.9,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            backbone_multiplier: 0.4,
            clip_norm: 0.0,
            schedule: ScheduleConfig::default(),
        }
    }
}

/// Which update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam with decoupled weight decay.
    AdamW,
}

/// Cosine with restarts and a warm-up (spec 40, section 9).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// What the cosine counts.
    pub unit: ScheduleUnit,
    /// Length of a cosine in that unit; 0: the whole stage.
    pub period: u64,
    /// Learning rate at the bottom of the cosine, over that at the top.
    pub floor: f64,
    /// How the rate rises during the warm-up.
    pub warmup: Warmup,
    /// Steps of the warm-up.
    pub warmup_steps: u64,
    /// Factor of the first warm-up step.
    pub warmup_start: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            unit: ScheduleUnit::Epoch,
            period: 100,
            floor: 0.01,
            warmup: Warmup::Linear,
            warmup_steps: 500,
            warmup_start: 0.1,
        }
    }
}

/// What a schedule counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleUnit {
    /// The rate changes with every step.
    Step,
    /// The rate changes with every epoch (warm-up still by step).
    Epoch,
}

/// How the rate rises during the warm-up, from the factor `warmup_start` = r in the first step; x is the share of the warm-up
/// that is done (TALLFormer `vedacore/hooks/lr_scheduler.py`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Warmup {
    /// `1 - (1 - x) (1 - r)`.
    Linear,
    /// `r^(1 - x)`.
    Exp,
    /// `r` until the warm-up ends.
    Constant,
}
