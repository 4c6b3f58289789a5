//! What can be typed. Nothing here acts: [`crate::commands`] says what it means.

mod bench;
mod checkpoint;
mod training;
mod weights;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use bench::{BenchArgs, Benchmark};
pub use checkpoint::{CheckpointArgs, CheckpointCommand, PruneArgs};
pub use training::{AgentArgs, FlightArgs, PretrainArgs, RunArgs, TrainArgs};
pub use weights::{DetectArgs, EvaluateArgs, ImportArgs, RuleArgs, Rules};

/// Distributed training of temporal action localizers, end to end on long untrimmed videos
#[derive(Debug, Parser)]
#[command(name = "longtake", bin_name = "longtake", version, arg_required_else_help = true)]
#[command(after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Write the result, or what is wrong, as one JSON object to standard output
    #[arg(long, global = true)]
    pub json: bool,
}

const AFTER_HELP: &str = "\
Start here: longtake train configs/quickstart.toml

Exit codes: 0 done; 1 failed; 2 the command line is wrong; 75 stopped, go on with --resume;
78 do not start again; 130 stopped with nothing to keep";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a detector: starts the workers, trains to the last epoch, prints the mAP
    Train(TrainArgs),
    /// Only the control plane of a run, for workers on several nodes: waits for agents
    Coordinator(TrainArgs),
    /// Start the workers of a run on this node, and watch them
    Agent(AgentArgs),
    /// Train only the backbone, as a classifier of trimmed clips
    Pretrain(PretrainArgs),
    /// Find the actions in videos: JSON and a picture of the timeline
    Detect(DetectArgs),
    /// The mAP of predictions, or of weights on a data set
    Evaluate(EvaluateArgs),
    /// Convert published weights (.pth, .safetensors) to Longtake's safetensors
    Import(ImportArgs),
    /// Make a small data set of real videos whose actions are known
    Synth(SynthArgs),
    /// Look after a data set
    Data(DataArgs),
    /// Print every setting, its value, and where the value comes from
    Config(ConfigArgs),
    /// What a run is doing
    Status(RunArgs),
    /// What each worker of a run did last, also after its end
    Flight(FlightArgs),
    /// Make a run save and end
    Stop(RunArgs),
    /// Look after the checkpoints of a run
    Checkpoint(CheckpointArgs),
    /// Measure a part of Longtake on this machine
    Bench(BenchArgs),
    /// A worker of a run; started by its agent
    #[command(hide = true)]
    Worker(WorkerArgs),
}

/// A configuration file and changes to it.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// The settings, as TOML
    pub config: PathBuf,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub overrides: Overrides,
}

/// Changes to settings.
#[derive(Debug, Clone, Default, Args)]
pub struct Overrides {
    /// Change a setting, for example `--set train.epochs=5`; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `longtake synth`
#[derive(Debug, Args)]
pub struct SynthArgs {
    /// The folder to make
    pub out: PathBuf,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub overrides: Overrides,
}

/// `longtake data`
#[derive(Debug, Args)]
pub struct DataArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DataCommand,
}

/// What can be done with a data set.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Read annotations and decode parts of every video: what is wrong before a run finds out
    Check(CheckArgs),
}

/// `longtake data check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub config: ConfigArgs,

    /// Decode every picture of every video, not only some at its ends and in its middle
    #[arg(long)]
    pub thorough: bool,
}

/// `longtake worker`
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The Unix socket of its agent
    #[arg(long)]
    pub socket: PathBuf,

    /// Which worker of the run, from 0
    #[arg(long)]
    pub index: u32,

    /// Where it listens for the other workers
    #[arg(long, value_name = "IP")]
    pub bind: IpAddr,

    /// The ring of its flight recorder
    #[arg(long)]
    pub flight: PathBuf,
}
