//! mAP by the official protocol, in one pass: detections and ground truth in, a report out. No tensors.
//!
//! Evaluators of the field differ in details. `Options` names each of them, and a `Report` says which was used.

mod average_precision;
mod baseline;
mod collision;
mod detections;
mod ground_truth;
mod options;
mod recall;
mod report;
#[cfg(test)]
mod results_tests;
#[cfg(test)]
mod tests;
mod thresholds;

pub use average_precision::evaluate;
pub use collision::collided;
pub use detections::{Detection, Detections};
pub use ground_truth::{GroundTruth, Interval};
pub use options::{Arithmetic, Labels, Options, Rounding, TieOrder, UnknownVideos};
pub use recall::{AverageRecall, average_recall, top_kx_recall};
pub use report::{ClassReport, Counts, Report};
pub use thresholds::{Meant, Thresholds, ThresholdsError, thresholds};

use std::io;
use std::path::PathBuf;

use crate::dataset::DatasetError;
use crate::hint::{ExitCode, Hint};
use crate::json::Place;
use crate::text::TextError;

/// Ground truth or detections that cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A file that cannot be read or written.
    #[error("`{}` cannot be accessed", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of another layout.
    #[error("`{}` is not a results file: {message}", path.display())]
    NotResults {
        /// The file.
        path: PathBuf,
        /// The field and what is wrong with it.
        message: String,
    },
    /// A file that gives no text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// One video with two lists of detections, of which a reader would keep one.
    #[error("`{}` holds the video `{video}` twice ({first}, and {second})", path.display())]
    RepeatedVideo {
        /// The file.
        path: PathBuf,
        /// The video.
        video: String,
        /// Where its first list begins.
        first: Place,
        /// Where its second list begins.
        second: Place,
    },
    /// Annotations that cannot be read.
    #[error(transparent)]
    Annotations(#[from] DatasetError),
    /// Nothing to compare with: a mean over no class has no value.
    #[error("the ground truth holds no action")]
    NoGroundTruth,
    /// No threshold.
    #[error("no tIoU threshold is given")]
    NoThreshold,
}

impl Hint for MetricsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotResults { .. } => Some(
                "expected `{\"results\": {video: [{\"label\": name, \"score\": number, \"segment\": [start, end]}]}}`"
                    .into(),
            ),
            Self::RepeatedVideo { .. } => Some("merge its lists of detections into one".into()),
            Self::Text(error) => error.hint(),
            Self::Annotations(error) => error.hint(),
            Self::NoGroundTruth => Some("give `--subset` a subset that is annotated".into()),
            Self::NoThreshold => Some("set `evaluation.tiou`, such as to `[0.3, 0.4, 0.5, 0.6, 0.7]`".into()),
            Self::Access { .. } => None,
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Access { source, .. } => ExitCode::of_named_file(source),
            Self::Text(error) => error.exit(),
            Self::Annotations(error) => error.exit(),
            Self::NotResults { .. }
            | Self::RepeatedVideo { .. }
            | Self::NoGroundTruth
            | Self::NoThreshold => ExitCode::NeverRestart,
        }
    }
}
