//! The details in which the field's evaluators differ (spec 60, sections 5 to 7).

use serde::{Deserialize, Serialize};

use super::thresholds;
use crate::config::{DisputedVideos, EvaluationConfig};

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
    /// What becomes of the two test videos of THUMOS14 with wrong or no labels (decision D18).
    pub disputed_videos: DisputedVideos,
    /// To how many digits detections are rounded first (decision D24).
    pub rounding: Rounding,
    /// Whether detections of classes without ground truth count as other classes (decision D22).
    pub labels: Labels,
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

/// To how many digits detections are rounded before anything else (decision D24). It makes ties of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// Not at all.
    Off,
    /// Times to 0.01 s, scores to 4 decimals.
    Opentad,
    /// Times to 0.1 s, scores to 6 decimals.
    Gtad,
}

impl Rounding {
    /// A detection's start, end and score.
    pub(super) fn of(self, start: f64, end: f64, score: f64) -> [f64; 3] {
        let to = |value: f64, places: f64| (value * places).round_ties_even() / places;
        match self {
            Self::Off => [start, end, score],
            Self::Opentad => [to(start, 1e2), to(end, 1e2), to(score, 1e4)],
            Self::Gtad => [to(start, 1e1), to(end, 1e1), to(score, 1e6)],
        }
    }
}

/// Whether detections of classes without ground truth count as other classes (decision D22).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// They are ignored.
    ByName,
    /// As in EPIC-Kitchens' evaluator and its copies: see [`super::collided`].
    Colliding,
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
            disputed_videos: DisputedVideos::Dropped,
            rounding: Rounding::Off,
            labels: Labels::ByName,
        }
    }

    /// The rules of a run; evenly spaced thresholds are computed as the official evaluator does. Which videos count was
    /// decided when the data set was loaded (`data.disputed_videos`).
    pub fn of_config(config: &EvaluationConfig) -> Self {
        Self { disputed_videos: DisputedVideos::Kept, ..Self::new(rethresholds(&config.tiou)) }
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
            disputed_videos: DisputedVideos::Kept,
            ..Self::new(tiou)
        }
    }

    /// What was chosen, as sentences; `has_disputed` is whether the data set is one with disputed videos.
    pub(super) fn sentences(&self, has_disputed: bool) -> Vec<String> {
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
        let labels = match self.labels {
            Labels::ByName => "detections of classes without ground truth are ignored",
            Labels::Colliding => {
                "detections of classes without ground truth count as the class in the place of their number"
            }
        };
        let rounding = match self.rounding {
            Rounding::Off => "detections are not rounded",
            Rounding::Opentad => "detections are rounded to 0.01 s and scores to 4 decimals",
            Rounding::Gtad => "detections are rounded to 0.1 s and scores to 6 decimals",
        };
        let disputed = match self.disputed_videos {
            DisputedVideos::Dropped => "test videos of THUMOS14 with wrong or no labels are left out",
            DisputedVideos::Kept => "test videos of THUMOS14 with wrong or no labels count",
        };
        let mut sentences = vec![ties, unknown, labels, cleaning, rounding, arithmetic];
        // Other data sets have none of them.
        sentences.extend(has_disputed.then_some(disputed));
        sentences.into_iter().map(str::to_owned).collect()
    }
}

/// Thresholds that are evenly spaced to the eye, spaced as [`thresholds()`] does; others as they are.
fn rethresholds(tiou: &[f64]) -> Vec<f64> {
    let (Some(first), Some(last)) = (tiou.first(), tiou.last()) else {
        return Vec::new();
    };
    let even = thresholds(*first, *last, tiou.len());
    let same = even.iter().zip(tiou).all(|(a, b)| (a - b).abs() < 1e-9);
    if same { even } else { tiou.to_vec() }
}
