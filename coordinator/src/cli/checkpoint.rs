//! What can be typed about checkpoints.

use clap::{Args, Subcommand};

use super::RunArgs;

/// `longtake checkpoint`
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CheckpointCommand,
}

/// What can be done with the checkpoints of a run.
#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// Which checkpoints there are: step, size, and which is the best
    List(RunArgs),
    /// Read every byte of every checkpoint: exit code 1 names what is damaged
    Verify(RunArgs),
    /// Remove old checkpoints of a run that has ended; the newest and the best stay
    Prune(PruneArgs),
}

/// `longtake checkpoint prune`
#[derive(Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub run: RunArgs,

    /// How many of the newest stay, beside the best one [default: the run's `checkpoint.keep`]
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
}
