//! What can be typed about runs.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigArgs, Overrides};

/// `longtake train`
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The settings, as TOML; with --resume those of the run, where none are given
    #[arg(required_unless_present = "resume")]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub overrides: Overrides,

    /// Go on with the run in this folder, from its newest whole checkpoint
    #[arg(long, value_name = "RUN", conflicts_with = "init")]
    pub resume: Option<PathBuf>,

    /// Begin with these weights
    #[arg(long, value_name = "WEIGHTS")]
    pub init: Option<PathBuf>,

    /// Go on although settings that training depends on have changed
    #[arg(long, requires = "resume")]
    pub allow_different_config: bool,
}

/// `longtake pretrain`
#[derive(Debug, Args)]
pub struct PretrainArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub config: ConfigArgs,
}

/// `longtake status`, `longtake stop`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The run's folder, for example `runs/quickstart`
    pub run: PathBuf,
}
