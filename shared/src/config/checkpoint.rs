//! Where, how often and how many checkpoints.

use serde::{Deserialize, Serialize};

use crate::units::Seconds;

/// Checkpoints of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// URL below which the run's checkpoints lie (`file:///...`, `s3://...`, `gs://...`, `az://...`, `memory:///`); empty: the run's folder.
    pub url: String,
    /// Epochs between two checkpoints; 0: only at the end and when asked.
    pub every: u64,
    /// Longest time between two checkpoints, whatever the epoch: the next save starts then, and when the last is durable;
    /// 0: only by epochs.
    pub interval: Seconds,
    /// Newest checkpoints that are kept, beside the best one.
    pub keep: usize,
    /// Whether a run may resume from a checkpoint that was made under other settings, data or decoders.
    pub allow_changes: bool,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { url: String::new(), every: 1, interval: Seconds(120.0), keep: 2, allow_changes: false }
    }
}
