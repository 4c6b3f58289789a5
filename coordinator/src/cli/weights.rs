//! What can be typed about weights and what they find.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use longtake_shared::config::DisputedVideos;
use longtake_shared::metrics::{Rounding, Thresholds, TieOrder, UnknownVideos};
use serde::de::DeserializeOwned;

use super::Overrides;

/// `longtake detect`
#[derive(Debug, Args)]
pub struct DetectArgs {
    /// The weights, as a run leaves them (.safetensors)
    pub weights: PathBuf,

    /// Video files, and folders whose videos are all taken
    #[arg(required = true)]
    pub videos: Vec<PathBuf>,

    /// Draw what is annotated beside what is found (ActivityNet layout)
    #[arg(long, value_name = "FILE")]
    pub annotations: Option<PathBuf>,

    /// The folder for `detections.json`, `timeline.svg` and, as soon as each is done, `videos/<video>.json`
    #[arg(long, value_name = "FOLDER", default_value = "detections")]
    pub out: PathBuf,

    /// Skip the videos that an earlier call with the same weights and settings has left done in the folder
    #[arg(long)]
    pub resume: bool,

    /// Draw detections from this score on (the JSON file holds all)
    #[arg(long, value_name = "SCORE", default_value_t = 0.3, value_parser = score)]
    pub threshold: f64,

    /// Use these settings in place of those the weights carry; environment and --set apply on top of either
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub overrides: Overrides,
}

/// `longtake evaluate`
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// The weights, or the folder of a run (its best weights are used)
    #[arg(required_unless_present = "predictions", requires = "config")]
    pub weights: Option<PathBuf>,

    /// The settings that name the data set
    pub config: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub overrides: Overrides,

    /// Evaluate this results file instead (ActivityNet layout)
    #[arg(long, value_name = "FILE", requires = "annotations", conflicts_with = "weights")]
    pub predictions: Option<PathBuf>,

    /// What is true (ActivityNet layout)
    #[arg(long, value_name = "FILE", requires = "predictions")]
    pub annotations: Option<PathBuf>,

    /// Also write the detections of WEIGHTS as a results file
    #[arg(long, value_name = "FILE", conflicts_with = "predictions")]
    pub out: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub rules: RuleArgs,
}

/// How detections are judged, where the field's evaluators differ.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rules")]
pub struct RuleArgs {
    /// Thresholds, as `0.3:0.1:0.7` or `0.5,0.75,0.95` [default: those of CONFIG, or 0.3:0.1:0.7]
    #[arg(long, value_name = "LIST")]
    pub tiou: Option<Thresholds>,

    /// The subset of --annotations
    #[arg(long, value_name = "NAME", default_value = "validation", requires = "annotations")]
    pub subset: String,

    /// A JSON array of video ids to leave out of --annotations
    #[arg(long, value_name = "FILE", requires = "annotations")]
    pub blocked: Option<PathBuf>,

    /// Whose rules
    #[arg(long, value_enum, default_value_t = Rules::Activitynet)]
    pub rules: Rules,

    /// Which of two detections with the same score counts first: `later-first` or `earlier-first`
    #[arg(long, value_name = "ORDER", value_parser = word::<TieOrder>)]
    pub ties: Option<TieOrder>,

    /// What detections in videos outside the ground truth are: `wrong` or `dropped`
    #[arg(long, value_name = "WHAT", value_parser = word::<UnknownVideos>)]
    pub unknown_videos: Option<UnknownVideos>,

    /// Drop ground truth without length, and repeated ground truth
    #[arg(long)]
    pub clean_ground_truth: bool,

    /// What the two test videos of THUMOS14 with wrong or no labels are: `dropped` or `kept`
    #[arg(long, value_name = "WHAT", value_parser = word::<DisputedVideos>)]
    pub disputed_videos: Option<DisputedVideos>,

    /// Round times and scores first, as `opentad` (0.01 s, 4 decimals) or `gtad` (0.1 s, 6 decimals) does
    #[arg(long, value_name = "WHOSE", value_parser = word::<Rounding>)]
    pub round: Option<Rounding>,

    /// Score detections of classes without ground truth as other classes, as published EPIC-Kitchens figures do
    #[arg(long, requires = "annotations")]
    pub epic_label_collision: bool,
}

/// A published set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rules {
    /// The official evaluator, made stable: the later of equal scores first; detections in unknown videos are wrong
    Activitynet,
    /// The same, with repeated and empty ground truth dropped
    Opentad,
    /// The copy in AFSD and TALLFormer: detections in unknown videos are dropped
    Afsd,
    /// The evaluator behind TALLFormer's THUMOS14 figures
    Vedatad,
}

/// `longtake import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The weights: .pth, .pt or .safetensors
    pub weights: PathBuf,

    /// The file to write; beside WEIGHTS where none is given
    pub out: Option<PathBuf>,
}

fn score(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|score| (0.0..=1.0).contains(score))
        .ok_or_else(|| "not a score from 0 to 1".to_owned())
}

/// A word as settings and reports spell it.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_spelt_as_in_reports() {
        assert_eq!(word::<TieOrder>("earlier-first"), Ok(TieOrder::EarlierFirst));
        assert!(word::<UnknownVideos>("ignored").unwrap_err().contains("`wrong`"));
    }
}
