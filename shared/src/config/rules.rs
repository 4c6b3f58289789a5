//! The rules that settings obey, each with the numbers that break it and what to do.

use std::fmt;

use crate::hint::Hint;

/// A rule that a configuration breaks.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BrokenRule {
    /// A number outside its range.
    #[error("`{key}` is {value}, but must be {range}")]
    OutOfRange {
        /// The setting.
        key: String,
        /// Its value.
        value: f64,
        /// What it may be.
        range: Range,
    },
    /// A list or a text without content.
    #[error("`{key}` is empty")]
    Empty {
        /// The setting.
        key: &'static str,
    },
    /// A rate so small that no clip would ever be sampled, though it is not 0.
    #[error(
        "`memory.sampling_rate` = {rate} samples no clip of {clips} (a window is `data.window_frames` / `data.clip_frames` clips)"
    )]
    NoClipSampled {
        /// r.
        rate: f64,
        /// Clips of a window.
        clips: usize,
    },
    /// A window that clips do not fill.
    #[error("`data.window_frames` is {window}, which is not a multiple of `data.clip_frames`, {clip}")]
    WindowNotClips {
        /// Frames of a window.
        window: usize,
        /// Frames of a clip.
        clip: usize,
    },
    /// A number that something halves.
    #[error("`{key}` is {value}, but must be even")]
    Odd {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: usize,
    },
    /// A crop that no frame holds.
    #[error("`data.crop` is {crop}, but frames are {width} x {height}")]
    CropTooLarge {
        /// Side of the crop.
        crop: usize,
        /// Width of a frame.
        width: usize,
        /// Height of a frame.
        height: usize,
    },
    /// Stages described twice, differently.
    #[error("`model.backbone.depths` names {depths} stages, `model.backbone.num_heads` {heads}")]
    StagesDiffer {
        /// Stages by depth.
        depths: usize,
        /// Stages by heads.
        heads: usize,
    },
    /// Attention heads that do not share a width evenly.
    #[error("`{key}` is {heads}, which does not divide a width of {width}")]
    HeadsDontDivide {
        /// The setting that holds the heads.
        key: &'static str,
        /// Heads.
        heads: usize,
        /// Channels to divide.
        width: usize,
    },
    /// A pyramid that is higher than the window is long.
    #[error(
        "{levels} pyramid levels (`model.neck.tdm_kernels` and one more) need {levels} positions, but a window of {window} frames has {positions}"
    )]
    TooManyLevels {
        /// Levels.
        levels: usize,
        /// Frames of a window.
        window: usize,
        /// Positions of the finest level.
        positions: usize,
        /// Frames between two of them.
        finest_stride: usize,
    },
    /// An attention band without a middle.
    #[error("`model.neck.tdm_kernels` holds {kernel}, but a band has an odd width")]
    EvenKernel {
        /// The width.
        kernel: usize,
    },
    /// A limit that leaves nothing.
    #[error("`evaluation.max_detections` is {value}, but must be 1 or more, or -1 for all")]
    NoDetections {
        /// The limit.
        value: i64,
    },
    /// A learning rate that stays at 0 during the whole warm-up.
    #[error("`{key}` is 0, which only a linear warm-up rises from")]
    WarmupAtZero {
        /// The setting of the first factor.
        key: String,
    },
    /// A worker that would have nothing to do.
    #[error("`cluster.workers` is {workers}, but `train.lanes` is {lanes}: a worker needs a lane")]
    TooManyWorkers {
        /// Workers.
        workers: usize,
        /// Lanes.
        lanes: usize,
    },
    /// Two settings in the wrong order.
    #[error("`{low}` is {low_value}, above `{high}`, {high_value}")]
    WrongOrder {
        /// The one that must not be larger.
        low: &'static str,
        /// Its value.
        low_value: f64,
        /// The one that must not be smaller.
        high: &'static str,
        /// Its value.
        high_value: f64,
    },
    /// A name that cannot be a folder's.
    #[error(
        "`run.name` is `{name}`, but may hold only letters, digits, `.`, `_` and `-`, and must begin with a letter or digit"
    )]
    BadRunName {
        /// The name.
        name: String,
    },
    /// Not an address to listen on.
    #[error("`cluster.listen` is `{address}`, which is not an address")]
    BadAddress {
        /// As written.
        address: String,
    },
    /// Not a URL.
    #[error("`checkpoint.url` is `{url}`, {problem}")]
    BadUrl {
        /// As written.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl BrokenRule {
    /// The settings that the rule is about.
    pub fn keys(&self) -> Vec<&str> {
        match self {
            Self::OutOfRange { key, .. } | Self::WarmupAtZero { key } => vec![key.as_str()],
            Self::NoDetections { .. } => vec!["evaluation.max_detections"],
            Self::Empty { key } | Self::Odd { key, .. } | Self::HeadsDontDivide { key, .. } => vec![key],
            Self::NoClipSampled { .. } => {
                vec!["memory.sampling_rate", "data.window_frames", "data.clip_frames"]
            }
            Self::WindowNotClips { .. } => vec!["data.window_frames", "data.clip_frames"],
            Self::CropTooLarge { .. } => vec!["data.crop", "data.frame_width", "data.frame_height"],
            Self::StagesDiffer { .. } => vec!["model.backbone.depths", "model.backbone.num_heads"],
            Self::TooManyLevels { .. } => vec!["model.neck.tdm_kernels", "data.window_frames"],
            Self::EvenKernel { .. } => vec!["model.neck.tdm_kernels"],
            Self::TooManyWorkers { .. } => vec!["cluster.workers", "train.lanes"],
            Self::WrongOrder { low, high, .. } => vec![low, high],
            Self::BadRunName { .. } => vec!["run.name"],
            Self::BadAddress { .. } => vec!["cluster.listen"],
            Self::BadUrl { .. } => vec!["checkpoint.url"],
        }
    }
}

impl Hint for BrokenRule {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::OutOfRange { .. } => return None,
            Self::NoDetections { .. } => "set `evaluation.max_detections` to -1 to keep all".into(),
            Self::WarmupAtZero { key } => format!("set `{key}` to a number above 0, such as 0.1"),
            Self::Empty { key } => format!("give `{key}` at least one entry"),
            Self::NoClipSampled { clips, .. } => format!(
                "set `memory.sampling_rate` to 0 (a frozen backbone) or to at least {:.4} (one clip of {clips})",
                1.0 / *clips as f64
            ),
            Self::WindowNotClips { window, clip } => {
                format!("set `data.window_frames` to {}", (window / clip).max(1) * clip)
            }
            Self::Odd { key, value } => format!("set `{key}` to {}", value + 1),
            Self::CropTooLarge { width, height, .. } => {
                format!("set `data.crop` to at most {}", width.min(height))
            }
            Self::StagesDiffer { .. } => "give both one entry a stage".into(),
            Self::HeadsDontDivide { key, width, .. } => format!("set `{key}` to a divisor of {width}"),
            Self::TooManyLevels { levels, finest_stride, .. } => {
                format!("remove kernels, or set `data.window_frames` to at least {}", levels * finest_stride)
            }
            Self::EvenKernel { kernel } => {
                format!("write {} instead, or 0 for attention without a band", kernel + 1)
            }
            Self::TooManyWorkers { lanes, .. } => {
                format!("set `cluster.workers` to at most {lanes}, or raise `train.lanes`")
            }
            Self::WrongOrder { low, high, .. } => format!("lower `{low}` or raise `{high}`"),
            Self::BadRunName { .. } => "choose a name such as `thumos-r0.15`".into(),
            Self::BadAddress { .. } => {
                "write an address and a port such as `127.0.0.1:0` (0: a free one)".into()
            }
            Self::BadUrl { .. } => {
                "write `file:///path`, `s3://bucket/path`, `gs://bucket/path`, `az://container/path`, or nothing for \
                 the run's folder"
                    .into()
            }
        })
    }
}

/// Which numbers a setting may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Range {
    /// 0 and 1 included.
    Fraction,
    /// 0 included, 1 not.
    BelowOne,
    /// 1 included, 0 not.
    Share,
    /// Above 0.
    Positive,
    /// 0 or more.
    NotNegative,
    /// From the first to the last, both included.
    Between(f64, f64),
    /// This.
    Exactly(f64),
    /// This or more.
    AtLeast(f64),
}

impl Range {
    pub(super) fn holds(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Self::Fraction => (0.0..=1.0).contains(&value),
                Self::BelowOne => (0.0..1.0).contains(&value),
                Self::Share => value > 0.0 && value <= 1.0,
                Self::Positive => value > 0.0,
                Self::NotNegative => value >= 0.0,
                Self::Between(low, high) => (low..=high).contains(&value),
                Self::Exactly(number) => (value - number).abs() < f64::EPSILON,
                Self::AtLeast(low) => value >= low,
            }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fraction => f.write_str("a number from 0 to 1"),
            Self::BelowOne => f.write_str("a number from 0 to less than 1"),
            Self::Share => f.write_str("a number above 0 and at most 1"),
            Self::Positive => f.write_str("a number above 0"),
            Self::NotNegative => f.write_str("a number, 0 or more"),
            Self::Exactly(number) => write!(f, "{number}"),
            Self::Between(low, high) => write!(f, "a number from {low} to {high}"),
            Self::AtLeast(low) => write!(f, "{low} or more"),
        }
    }
}
