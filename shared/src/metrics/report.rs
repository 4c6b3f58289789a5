//! How good detections are: a table for people, fields for programs.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::AverageRecall;
use crate::units::counted;

/// The outcome of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// tIoU thresholds.
    pub tiou: Vec<f64>,
    /// Every class that has ground truth.
    pub per_class: Vec<ClassReport>,
    /// Mean over classes of the average precision, one a threshold.
    pub map: Vec<f64>,
    /// Mean of `map`.
    pub average: f64,
    /// Recall of the detections as proposals, where that was asked for.
    #[serde(default)]
    pub average_recall: Option<AverageRecall>,
    /// Which rule was used where evaluators differ.
    pub rules: Vec<String>,
    /// How much was compared with how much.
    pub counts: Counts,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Its name.
    pub name: String,
    /// Its actions.
    pub ground_truth: usize,
    /// Its detections.
    pub predictions: usize,
    /// Its average precision, one a threshold.
    pub ap: Vec<f64>,
}

/// How much was compared with how much.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Videos of the ground truth.
    pub videos: usize,
    /// Actions of the ground truth.
    pub ground_truth: usize,
    /// Actions that cleaning dropped.
    pub cleaned: usize,
    /// Detections that were judged.
    pub predictions: usize,
    /// Most detections of one video.
    pub most_per_video: usize,
    /// Detections in videos that are not in the ground truth.
    pub in_unknown_videos: usize,
    /// Detections of classes without ground truth (decision D17).
    pub of_unknown_labels: usize,
    /// Those classes.
    pub unknown_labels: Vec<String>,
    /// Detections whose score or times are not finite: dropped.
    pub not_finite: usize,
    /// Classes with ground truth but without a detection.
    pub classes_without_predictions: usize,
}

impl Report {
    /// Classes as rows, thresholds as columns, mAP below, then counts and rules.
    pub fn table(&self) -> String {
        let total: (usize, usize) = self
            .per_class
            .iter()
            .fold((0, 0), |(truth, found), class| (truth + class.ground_truth, found + class.predictions));
        let width = self.per_class.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max(5);
        let mut text = format!("{:<width$}  {:>6}  {:>6}", "class", "actual", "found");
        for tiou in &self.tiou {
            let _ = write!(text, "  {tiou:>5.2}");
        }
        text.push_str("   mean\n");
        let mut row = |name: &str, truth: usize, found: usize, values: &[f64], mean: f64| {
            let _ = write!(text, "{name:<width$}  {truth:>6}  {found:>6}");
            for value in values.iter().chain([&mean]) {
                let _ = write!(text, "  {:>5.1}", value * 100.0);
            }
            text.push('\n');
        };
        for class in &self.per_class {
            let mean = class.ap.iter().sum::<f64>() / class.ap.len().max(1) as f64;
            row(&class.name, class.ground_truth, class.predictions, &class.ap, mean);
        }
        row("mAP %", total.0, total.1, &self.map, self.average);
        text
    }

    /// Counts and rules as sentences, for below the table.
    pub fn notes(&self) -> Vec<String> {
        let counts = &self.counts;
        let mean = counts.predictions as f64 / counts.videos.max(1) as f64;
        let mut notes = vec![format!(
            "{}, {}, {mean:.1} detections a video (at most {})",
            counted(counts.videos, "video"),
            counted(counts.ground_truth, "action"),
            counts.most_per_video
        )];
        let remarkable = [
            (counts.classes_without_predictions, ["class has no detection", "classes have no detection"]),
            (
                counts.in_unknown_videos,
                [
                    "detection lies in a video outside the ground truth",
                    "detections lie in videos outside the ground truth",
                ],
            ),
            (
                counts.not_finite,
                ["detection is not finite and was dropped", "detections are not finite and were dropped"],
            ),
            (
                counts.cleaned,
                ["action of the ground truth was dropped", "actions of the ground truth were dropped"],
            ),
        ];
        let said = remarkable.iter().filter(|(count, _)| *count > 0);
        notes.extend(
            said.map(|(count, [one, many])| format!("{count} {}", if *count == 1 { one } else { many })),
        );
        if counts.of_unknown_labels > 0 {
            notes.push(format!(
                "{} of classes without ground truth: `{}`",
                counted(counts.of_unknown_labels, "detection"),
                counts.unknown_labels.join("`, `")
            ));
        }
        notes.extend(self.average_recall.as_ref().map(|recall| {
            let shown = [1, 5, 10, 50, 100].into_iter().filter_map(|count: usize| {
                Some(format!("{:.1} at {count}", 100.0 * recall.at.get(count - 1)?))
            });
            let (shown, area) = (shown.collect::<Vec<_>>().join(", "), 100.0 * recall.area);
            format!("average recall by detections a video, whatever their class (AR@AN, %): {shown}; area {area:.1}")
        }));
        notes.extend(self.rules.iter().cloned());
        notes
    }
}
