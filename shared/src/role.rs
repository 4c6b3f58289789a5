//! What the command line asks of the worker library, and what it answers. Neither side knows more of the other.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{DataConfig, Resolved, SynthConfig};
use crate::hint::Failure;
use crate::metrics::Detections;
use crate::units::Seconds;

/// How a long answer tells how far it is: units done, units in all.
pub type OnProgress<'a> = &'a mut dyn FnMut(u64, u64);

/// Takes what was found in the video of this position of a request, or why nothing could be; an error of its own ends the work.
pub type OnVideo<'a> = &'a mut dyn FnMut(usize, Result<Detected, Failure>) -> Result<(), Failure>;

/// A worker process of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkRequest {
    /// The Unix socket of its agent.
    pub socket: PathBuf,
    /// Which worker of the run, from 0.
    pub index: u32,
    /// Where it listens for the other workers: an address of this machine that they reach.
    pub bind: IpAddr,
    /// The ring of its flight recorder, which its agent has made.
    pub flight: PathBuf,
}

/// A data set to make.
#[derive(Debug, Clone, PartialEq)]
pub struct SynthRequest {
    /// What to make.
    pub synth: SynthConfig,
    /// Where; the folder does not exist or is empty.
    pub folder: PathBuf,
}

impl SynthRequest {
    /// The annotation file, in the ActivityNet layout.
    pub fn annotations(&self) -> PathBuf {
        self.folder.join("annotations.json")
    }

    /// The folder of the videos, one `<id>.mp4` each.
    pub fn videos(&self) -> PathBuf {
        self.folder.join("videos")
    }
}

/// A data set that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SynthReport {
    /// Videos made.
    pub videos: usize,
    /// Actions in them.
    pub actions: usize,
}

/// A video to look into.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeRequest {
    /// Which decoder, and whether truncated videos are welcome.
    pub data: DataConfig,
    /// The file.
    pub video: PathBuf,
    /// How much of it is decoded.
    pub depth: Depth,
}

/// How much of a video is decoded to find damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// A few pictures at its start, in its middle and at its end.
    Ends,
    /// Every picture.
    Whole,
}

/// A video by the name that results give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedVideo {
    /// Its name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// Videos to find actions in.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectRequest {
    /// Weights as a run leaves them; they carry the settings and classes they were trained with.
    pub weights: PathBuf,
    /// How to detect: the settings that the weights carry, or others that fit them.
    pub settings: Box<Resolved>,
    /// The videos.
    pub videos: Vec<NamedVideo>,
}

/// What was found in videos.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    /// The detections.
    pub detections: Detections,
    /// The length of each of the detections' videos.
    pub durations: Vec<Seconds>,
    /// How many more detections each of the videos would have without the limit of the settings; empty where that is
    /// not known.
    pub cut: Vec<usize>,
}

/// Weights of another program to take over.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportRequest {
    /// The file: `.pth`, `.pt` or `.safetensors`.
    pub weights: PathBuf,
    /// The file to write.
    pub output: PathBuf,
}

/// Weights that were taken over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportReport {
    /// The file that was written.
    pub output: PathBuf,
    /// What the weights are, for example `Video Swin-B`.
    pub model: String,
    /// Tensors taken over.
    pub tensors: usize,
    /// Numbers in them.
    pub parameters: u64,
    /// Names in the file that have no place here.
    pub left_out: Vec<String>,
}

/// Which weights of a file a backbone begins with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WeightsReport {
    /// Parameters that are in the file.
    pub used: Vec<String>,
    /// Parameters that the file lacks; they begin at random.
    pub missing: Vec<String>,
    /// Names in the file that the backbone has no parameter for.
    pub unused: Vec<String>,
}

/// Weights to evaluate on the validation subset of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluateRequest {
    /// The weights.
    pub weights: PathBuf,
    /// The data set and how to detect.
    pub settings: Box<Resolved>,
}

/// What the worker library can measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerBenchmark {
    /// Gather and write-back of the long memory.
    Memory,
    /// Forward and backward pass of the backbone.
    Backbone,
    /// The sum of a vector over ranks.
    AllReduce,
    /// Saving a checkpoint, and noticing a damaged one.
    Checkpoint,
}
