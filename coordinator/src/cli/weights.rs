//! What can be typed about weights and what they find.

use std::path::PathBuf;

use clap::Args;

use super::Overrides;

/// `longtake detect`
#[derive(Debug, Args)]
pub struct DetectArgs {
    /// The weights, as a run leaves them (.safetensors)
    pub weights: PathBuf,

    /// The video files
    #[arg(required = true)]
    pub videos: Vec<PathBuf>,

    /// Draw what is annotated beside what is found (ActivityNet layout)
    #[arg(long, value_name = "FILE")]
    pub annotations: Option<PathBuf>,

    /// The folder for `detections.json` and `timeline.svg`
    #[arg(long, value_name = "FOLDER", default_value = "detections")]
    pub out: PathBuf,

    /// Draw detections from this score on (the JSON file holds all)
    #[arg(long, value_name = "SCORE", default_value_t = 0.3, value_parser = score)]
    pub threshold: f64,

    /// Use these settings in place of those the weights were trained with
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
    text.parse().ok().filter(|score| (0.0..=1.0).contains(score)).ok_or_else(|| "not a score from 0 to 1".to_owned())
}
