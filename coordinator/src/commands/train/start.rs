//! Hands a prepared run to the control plane: coordinator in this process, and the agent too where no others come.

use std::path::Path;

use longtake_shared::checkpoint::{CheckpointStore, Manifest, Retention};
use longtake_shared::dataset::Dataset;
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::lanes::Lanes;
use tokio::sync::mpsc;

use super::Workers;
use super::committing::{ChainCommitter, find_whole, resume};
use super::prepare::Prepared;
use super::validation::Judge;
use crate::commands::files;
use crate::signals::Signals;
use crate::terminal::console::Console;
use crate::updates::{Outcome, RunUpdate};
use crate::{TrainError, TrainRequest, coordinate, train_local};

/// Runs to the end; the channel is closed when nothing more will be told.
pub(super) fn start(
    prepared: &Prepared,
    workers: Workers,
    dataset: &Dataset,
    lanes: Lanes,
    updates: mpsc::UnboundedSender<RunUpdate>,
    console: Console,
) -> Result<Outcome, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("the threads of the coordinator cannot start: {error}")))?;
    runtime.block_on(async {
        let request = request(prepared, dataset, lanes, updates, console).await?;
        let outcome = match workers {
            Workers::OfThisProcess => train_local(request).await,
            Workers::OfAgents => coordinate(request).await,
        };
        outcome.map_err(failure)
    })
}

async fn request(
    prepared: &Prepared,
    dataset: &Dataset,
    lanes: Lanes,
    updates: mpsc::UnboundedSender<RunUpdate>,
    console: Console,
) -> Result<TrainRequest, Failure> {
    let config = &prepared.resolved.config;
    let folder = absolute(&prepared.folder.0)?;
    let store = CheckpointStore::of_run(config, &folder)?;
    let newest = if prepared.resume { newest(&store, console).await? } else { None };
    let best = newest.as_ref().and_then(|manifest| manifest.best);
    let best_map = best.map(|best| best.average_map);
    let mut judge = Judge::new(dataset, &config.evaluation, lanes, prepared.folder.results(), best_map);
    let committer = ChainCommitter {
        store,
        appender: None,
        retention: Retention { newest: config.checkpoint.keep },
        best_weights: prepared.folder.best_weights(),
        best,
        written: None,
    };
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("the path of this program cannot be found out: {error}")))?;
    // What is allowed for this start is not allowed for the next: the stored settings keep what the user wrote.
    let mut allowed = config.clone();
    allowed.checkpoint.allow_changes = prepared.allow_changes;
    let (stored, settings) = (prepared.folder.stored_settings_file(), prepared.resolved.to_json());
    Ok(TrainRequest {
        config: allowed,
        run_folder: folder,
        worker_command: vec![program.into(), "worker".into()],
        resume: newest.map(|manifest| resume(&manifest)).transpose()?,
        committer: Box::new(committer),
        reporter: Box::new(move |validation| judge.judge(&validation)),
        updates,
        begun: Box::new(move || files::write_whole(&stored, settings.as_bytes())),
        signals: Signals::install()
            .map_err(|error| Failure::new(format!("stop signals cannot be received: {error}")))?,
    })
}

/// Workers are told the folder, whatever folder they run in.
fn absolute(folder: &Path) -> Result<std::path::PathBuf, Failure> {
    std::path::absolute(folder)
        .map_err(|error| Failure::new(format!("`{}` cannot be found: {error}", folder.display())))
}

/// The newest whole checkpoint; what had to be passed over is said.
async fn newest(store: &CheckpointStore, console: Console) -> Result<Option<Manifest>, Failure> {
    let newest = find_whole(store).await?;
    for damage in &newest.passed_over {
        console.warn(&format!("{damage}: the checkpoint that needs it is passed over"));
    }
    Ok(newest.found.map(|(_, manifest)| manifest))
}

/// Settings that no run can have are wrong at every restart too.
fn failure(error: TrainError) -> Failure {
    let settings =
        matches!(error, TrainError::TooManyWorkers { .. } | TrainError::NoWorkers | TrainError::Lease(_));
    let failure = Failure::from(error);
    if settings { Failure { exit: ExitCode::NeverRestart, ..failure } } else { failure }
}
