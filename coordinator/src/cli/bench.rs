//! What can be typed about benchmarks.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `longtake bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Which part
    #[arg(value_enum)]
    pub name: Benchmark,

    /// Folder for the files it needs; they are removed at the end
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub folder: PathBuf,
}

/// What can be measured. A further one needs a name here and a line in `commands/bench`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Benchmark {
    /// The evaluator: mAP of 200 videos
    Map,
    /// The long memory beside a plain memory map: gather and write-back of a step
    Memory,
    /// The backbone on the CPU, forward and backward
    Backbone,
    /// From `longtake train` to the first step done by four workers
    Launch,
    /// The sum of a vector over ranks, through loopback
    AllReduce,
    /// Saving a checkpoint of four ranks, and noticing flipped bits
    Checkpoint,
    /// The decision for a new generation of a large run
    Control,
    /// From a fault to the next step of a real run
    Recovery,
}
