//! What the command line may ask of this library, as plain functions over shared types.

use std::path::Path;

use longtake_shared::dataset::ProbedVideo;
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::{
    BenchRow, DetectRequest, Detected, EvaluateRequest, ImportReport, ImportRequest, OnProgress,
    ProbeRequest, SynthReport, SynthRequest, WorkRequest,
};

/// Is a worker of a run, from its start to its end.
///
/// # Errors
/// As sentences for the worker's log.
pub fn work(request: &WorkRequest) -> Result<ExitCode, Failure> {
    Err(missing(&format!("the worker `{}`", request.worker)))
}

/// Makes a data set; counts videos.
///
/// # Errors
/// Settings the encoder cannot meet, files that cannot be written.
pub fn synth(request: &SynthRequest, _on_progress: OnProgress<'_>) -> Result<SynthReport, Failure> {
    Err(missing(&format!("the data set `{}`", request.folder.display())))
}

/// Looks into a video.
///
/// # Errors
/// A file that is not a video, or that no decoder here can read.
pub fn probe(request: &ProbeRequest) -> Result<ProbedVideo, Failure> {
    Err(missing(&format!("the video `{}`", request.video.display())))
}

/// Finds actions; counts videos.
///
/// # Errors
/// Weights or videos that cannot be read.
pub fn detect(request: &DetectRequest, _on_progress: OnProgress<'_>) -> Result<Detected, Failure> {
    Err(missing(&format!("the weights `{}`", request.weights.display())))
}

/// Finds actions in the validation videos of a data set; counts videos.
///
/// # Errors
/// Weights or a data set that cannot be read.
pub fn evaluate(request: &EvaluateRequest, _on_progress: OnProgress<'_>) -> Result<Detected, Failure> {
    Err(missing(&format!("the weights `{}`", request.weights.display())))
}

/// Takes over weights of another program.
///
/// # Errors
/// A file that cannot be read or written, tensors of another model.
pub fn import(request: &ImportRequest) -> Result<ImportReport, Failure> {
    Err(missing(&format!("the weights `{}`", request.weights.display())))
}

/// Measures; an unknown name fails with the known ones as advice. Files it needs lie below the folder.
///
/// # Errors
/// An unknown name.
pub fn bench(name: &str, _folder: &Path) -> Result<Vec<BenchRow>, Failure> {
    Err(missing(&format!("the benchmark `{name}`")))
}

/// The one sentence of what is not linked yet.
fn missing(what: &str) -> Failure {
    Failure::new(format!("{what} cannot be handled by this build"))
}
