//! What can be typed about runs.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigArgs, Overrides};

/// `longtake train`, `longtake coordinator`
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

/// `longtake agent`
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The run's folder, for example `runs/quickstart`: logs go there, and its coordinator is found there
    #[arg(long, value_name = "RUN")]
    pub run: PathBuf,

    /// Where the coordinator listens, where the folder does not tell
    #[arg(long, value_name = "HOST:PORT", requires = "token_file")]
    pub coordinator: Option<String>,

    /// A file with the token of that coordinator: `token` in the run's `coordinator.json`
    #[arg(long, value_name = "FILE", requires = "coordinator")]
    pub token_file: Option<PathBuf>,

    /// Workers it may start: one a GPU
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub slots: u16,

    /// Threads of each worker on CPU, instead of what `cluster.threads` of the run says; 0: this node's cores divided by
    /// the slots
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// `longtake flight`
#[derive(Debug, Args)]
pub struct FlightArgs {
    /// The run's folder, for example `runs/quickstart`
    pub run: PathBuf,

    /// Only this worker
    #[arg(long, value_name = "I")]
    pub worker: Option<u32>,

    /// How many records of each worker
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub last: usize,
}

/// `longtake status`, `longtake stop`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The run's folder, for example `runs/quickstart`
    pub run: PathBuf,
}
