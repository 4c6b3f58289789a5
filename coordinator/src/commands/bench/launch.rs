//! From the start of `longtake train` to the first step that four workers have done together.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use longtake_shared::bench::{Row, Times};
use longtake_shared::config::SynthConfig;
use longtake_shared::hint::Failure;
use longtake_shared::protocol::Stage;
use longtake_shared::role::SynthRequest;
use longtake_shared::stop::Stop;
use longtake_shared::units::Seconds;

use crate::worker_role::WorkerRole;

const RUNS: usize = 11;

/// Four workers of a small model that train one step on tiny videos.
const SETTINGS: &str = include_str!("launch.toml");

/// Launches real runs, one after the other; their videos are made before.
pub(super) fn measure(folder: &Path, worker: WorkerRole) -> Result<Vec<Row>, Failure> {
    prepare(folder, worker)?;
    let mut times = Times::default();
    for run in 0..RUNS {
        launch(folder, &format!("launch-{run}"), &mut times)?;
    }
    Ok(vec![times.row("launch to the first step of 4 workers")])
}

/// Makes the videos and writes the settings.
pub(super) fn prepare(folder: &Path, worker: WorkerRole) -> Result<(), Failure> {
    let synth = SynthConfig {
        training_videos: 4,
        validation_videos: 1,
        min_duration: Seconds(6.0),
        max_duration: Seconds(7.0),
        width: 64,
        height: 48,
        classes: 2,
        ..SynthConfig::default()
    };
    (worker.synth)(&SynthRequest { synth, folder: folder.join("data") }, &Stop::default(), &mut |_, _| {})?;
    fs::write(folder.join("launch.toml"), SETTINGS)
        .map_err(|error| Failure::new(format!("the settings of the benchmark cannot be written: {error}")))
}

/// One run to its end; notes when the first step was told.
fn launch(folder: &Path, name: &str, times: &mut Times) -> Result<(), Failure> {
    let failed = |what: String| Failure::new(format!("the run that was to be measured {what}"));
    let program = std::env::current_exe().map_err(|error| failed(format!("has no program: {error}")))?;
    let begun = Instant::now();
    let mut child = Command::new(program)
        .args(["train", "launch.toml", "--set", &format!("run.name={name}")])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("does not start: {error}")))?;
    let mut said = Vec::new();
    let mut first_step = None;
    for line in child.stderr.take().map(BufReader::new).into_iter().flat_map(BufReader::lines) {
        let line = line.map_err(|error| failed(format!("cannot be watched: {error}")))?;
        // The last step of a stage is always told; here it is the first.
        let of_training = line.trim_start().starts_with(Stage::Train.name());
        if first_step.is_none() && of_training && line.contains("step 1/1 ") {
            first_step = Some(begun.elapsed());
        }
        said.push(line);
    }
    let status = child.wait().map_err(|error| failed(format!("cannot be waited for: {error}")))?;
    match first_step {
        Some(took) if status.success() => {
            times.push(took);
            Ok(())
        }
        _ => Err(failed(format!("ended with {status}")).hint(said.join("\n"))),
    }
}
