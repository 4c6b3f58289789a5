//! The details in which the field's evaluators differ (spec 60, sections 5 to 7).

use serde::{Deserialize, Serialize};

use crate::config::EvaluationConfig;

/// How detections are judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// tIoU thresholds; a detection matches from its threshold on.
    pub tiou: Vec<f64>,
    /// Which of two detections with the same score comes first.
    pub ties: TieOrder,
    /// What becomes of detections in videos that are not in the ground truth.
    pub unknown_videos: UnknownVideos,
    /// Whether actions without length and repeated ones (same class, both ends within 1 ms) are dropped first.
    pub clean_ground_truth: bool,
    /// In which numbers.
    pub arithmetic: Arithmetic,
}

/// Which of two detections with the same score comes first (decision D16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TieOrder {
    /// The later one, as a stable ascending sort that is then reversed has it (the official evaluator, made stable).
    LaterFirst,
    /// The earlier one.
    EarlierFirst,
}

/// What becomes of detections in videos that are not in the ground truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownVideos {
    /// They are wrong (ActivityNet's evaluator, OpenTAD).
    Wrong,
    /// They are not looked at (AFSD and TALLFormer).
    Dropped,
}

/// In which numbers scores, times and precision are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arithmetic {
    /// 64 bits (ActivityNet).
    Double,
    /// 32 bits, and means in NumPy's order of summation (vedatad).
    Single,
}

impl Options {
    /// Longtake's own rules: the official ones, made stable.
    pub fn new(tiou: Vec<f64>) -> Self {
        Self {
            tiou,
            ties: TieOrder::LaterFirst,
            unknown_videos: UnknownVideos::Wrong,
            clean_ground_truth: false,
            arithmetic: Arithmetic::Double,
        }
    }

    /// The rules of a run; evenly spaced thresholds are computed as the official evaluator does.
    pub fn of_config(config: &EvaluationConfig) -> Self {
        Self::new(respaced(&config.tiou))
    }

    /// ActivityNet's evaluator. It refuses classes without ground truth, which are ignored here (decision D17).
    pub fn activitynet(tiou: Vec<f64>) -> Self {
        Self::new(tiou)
    }

    /// OpenTAD's evaluator.
    pub fn opentad(tiou: Vec<f64>) -> Self {
        Self { clean_ground_truth: true, ..Self::new(tiou) }
    }

    /// The copy of ActivityNet's evaluator in AFSD and TALLFormer.
    pub fn afsd(tiou: Vec<f64>) -> Self {
        Self { unknown_videos: UnknownVideos::Dropped, ..Self::new(tiou) }
    }

    /// The evaluator behind TALLFormer's THUMOS14 figures (spec 60, section 5).
    pub fn vedatad(tiou: Vec<f64>) -> Self {
        Self {
            ties: TieOrder::EarlierFirst,
            unknown_videos: UnknownVideos::Dropped,
            arithmetic: Arithmetic::Single,
            ..Self::new(tiou)
        }
    }

    /// What was chosen, as sentences.
    pub(super) fn sentences(&self) -> Vec<String> {
        let ties = match self.ties {
            TieOrder::LaterFirst => "of two detections with the same score the later one counts first",
            TieOrder::EarlierFirst => "of two detections with the same score the earlier one counts first",
        };
        let unknown = match self.unknown_videos {
            UnknownVideos::Wrong => "detections in videos outside the ground truth are wrong",
            UnknownVideos::Dropped => "detections in videos outside the ground truth are dropped",
        };
        let cleaning = if self.clean_ground_truth {
            "ground truth without length and repeated ground truth is dropped"
        } else {
            "the ground truth is taken as it is"
        };
        let arithmetic = match self.arithmetic {
            Arithmetic::Double => "computed in 64 bits; the union of two intervals is at least 1e-8",
            Arithmetic::Single => "computed in 32 bits; the union of two intervals is at least 1e-8",
        };
        let labels = "detections of classes without ground truth are ignored";
        [ties, unknown, labels, cleaning, arithmetic].map(str::to_owned).to_vec()
    }
}

/// `count` evenly spaced thresholds, as NumPy's `linspace` computes them, so that borderline tIoUs compare alike.
pub fn thresholds(first: f64, last: f64, count: usize) -> Vec<f64> {
    let step = (last - first) / count.saturating_sub(1).max(1) as f64;
    let mut values: Vec<f64> = (0..count).map(|index| index as f64 * step + first).collect();
    if count > 1 {
        values[count - 1] = last;
    }
    values
}

/// Thresholds that are evenly spaced to the eye, spaced as [`thresholds`] does; others as they are.
fn respaced(tiou: &[f64]) -> Vec<f64> {
    let (Some(first), Some(last)) = (tiou.first(), tiou.last()) else {
        return Vec::new();
    };
    let even = thresholds(*first, *last, tiou.len());
    let same = even.iter().zip(tiou).all(|(a, b)| (a - b).abs() < 1e-9);
    if same { even } else { tiou.to_vec() }
}
