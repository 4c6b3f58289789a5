//! The worker library as the command line sees it: functions that `main.rs` fills in where the feature `worker` is on.

use std::path::Path;

use longtake_shared::bench::Row;
use longtake_shared::config::{Resolved, RunConfig};
use longtake_shared::dataset::Examined;
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::{
    DetectRequest, Detected, EvaluateRequest, ImportReport, ImportRequest, OnProgress, OnVideo, ProbeRequest,
    SynthReport, SynthRequest, WeightsReport, WorkRequest, WorkerBenchmark,
};
use longtake_shared::stop::Stop;

/// What the worker library can do for a command. Each function reports what is wrong as a [`Failure`].
#[derive(Debug, Clone, Copy)]
pub struct WorkerRole {
    /// Is a worker of a run, from its start to its end.
    pub work: fn(&WorkRequest) -> Result<ExitCode, Failure>,
    /// Makes a data set; counts videos.
    pub synth: fn(&SynthRequest, &Stop, OnProgress<'_>) -> Result<SynthReport, Failure>,
    /// Decodes some of a video, or all of it.
    pub probe: fn(&ProbeRequest) -> Examined,
    /// The settings that weights were trained with.
    pub carried_settings: fn(&Path) -> Result<Resolved, Failure>,
    /// Finds actions, video by video.
    pub detect: fn(&DetectRequest, &Stop, OnVideo<'_>) -> Result<(), Failure>,
    /// Finds actions in the validation videos of a data set; counts videos.
    pub evaluate: fn(&EvaluateRequest, &Stop, OnProgress<'_>) -> Result<Detected, Failure>,
    /// Takes over weights of another program.
    pub import: fn(&ImportRequest, &Stop) -> Result<ImportReport, Failure>,
    /// Which weights of the file in the settings the backbone would begin with.
    pub starting_weights: fn(&RunConfig) -> Result<WeightsReport, Failure>,
    /// Measures; files it needs lie below the folder, which is empty.
    pub bench: fn(WorkerBenchmark, &Path) -> Result<Vec<Row>, Failure>,
}

/// The role, or the sentence that says that this build has none.
///
/// # Errors
/// The program was built without the feature `worker`.
pub fn require(role: Option<WorkerRole>, command: &str) -> Result<WorkerRole, Failure> {
    role.ok_or_else(|| {
        Failure::new(format!("`longtake {command}` needs the worker library, which this build leaves out"))
            .hint("use a `longtake` built with the default features")
    })
}
