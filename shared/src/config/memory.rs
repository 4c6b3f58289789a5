//! Which clips pass through the backbone, and how the features of the others are remembered (spec 20).

use serde::{Deserialize, Serialize};

/// The sampling rate r and the long memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Fraction r of a window's clips that train the backbone in a step: `floor(r * clips)` of them. 0 is LT-Frozen.
    pub sampling_rate: f64,
    /// How the sampled clips are chosen.
    pub sampler: ClipSampler,
    /// Type in which rows are stored.
    pub dtype: MemoryDtype,
    /// How the memory is filled before the first step.
    pub init: MemoryInit,
    /// Whether drop path acts while the memory is filled (decision D4: the published code leaves it on).
    pub init_in_train_mode: bool,
    /// What stands for clips that are not sampled.
    pub source: MemorySource,
    /// Whether the features of sampled clips replace the remembered ones.
    pub write_back: bool,
    /// Whether sampled clips pass the backbone twice so that its tape holds one chunk at a time.
    pub replay: Replay,
    /// Clips a chunk: how many pass through the backbone together.
    pub chunk_clips: usize,
    /// Copies of each write-back that other workers hold until it is in a checkpoint (0 or 1); for `cluster.recovery = "fast"`.
    pub replicas: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            sampling_rate: 0.15,
            sampler: ClipSampler::Random,
            dtype: MemoryDtype::F32,
            init: MemoryInit::Extract,
            init_in_train_mode: true,
            source: MemorySource::Remembered,
            write_back: true,
            replay: Replay::On,
            chunk_clips: 1,
            replicas: 0,
        }
    }
}

impl MemoryConfig {
    /// N_s, the clips of a window that are sampled: r times the number of clips, rounded down (decision D19).
    /// A hair is added first, so that 0.3 of 10 clips are 3 although 0.3 * 10 is a little less in binary.
    pub fn sampled_clips(&self, clips: usize) -> usize {
        (self.sampled_share(clips) as usize).min(clips)
    }

    /// r times the number of clips, before it is rounded down.
    pub fn sampled_share(&self, clips: usize) -> f64 {
        self.sampling_rate * clips as f64 + 1e-9
    }
}

/// How the sampled clips are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClipSampler {
    /// Without replacement, each subset equally likely.
    Random,
    /// Evenly spread over the window: `floor(linspace(0, clips - 1, sampled))`.
    Uniform,
    /// Evenly spread, each moved on by up to the distance of two (the published ActivityNet recipe); clips that fall
    /// together are sampled once, so that there may be fewer.
    UniformJitter,
}

/// Type in which rows are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryDtype {
    /// 32 bits.
    F32,
    /// 16 bits, 5 of them exponent.
    F16,
    /// 16 bits, 8 of them exponent.
    Bf16,
}

impl MemoryDtype {
    /// Bytes a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// How the memory is filled before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryInit {
    /// By passing every training video through the starting backbone.
    Extract,
    /// Not at all: absent rows are computed when a step needs them.
    Absent,
}

/// What stands for clips that are not sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemorySource {
    /// Their remembered features.
    Remembered,
    /// Zeros (an ablation).
    Zeros,
}

/// Whether sampled clips pass the backbone twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replay {
    /// Twice: without a tape, then chunk by chunk with one.
    On,
    /// Once, with the tape of all sampled clips (the published step).
    Off,
}
