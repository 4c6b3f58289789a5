//! Hands a prepared run to the control plane: coordinator in this process, and the agent too where no others come.

use std::path::Path;

use longtake_shared::checkpoint::{CheckpointStore, Manifest, Retention};
use longtake_shared::dataset::Dataset;
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::lanes::Lanes;
use tokio::sync::mpsc;

use super::Workers;
use super::committing::{ChainCommitter, find_whole, resume};
use super::prepare::{Origin, Prepared};
use super::validation::Judge;
use crate::commands::interruption::Interruption;
use crate::commands::{files, runtime};
use crate::signals::Signals;
use crate::terminal::console::Console;
use crate::terminal::phrases::shell;
use crate::updates::{Outcome, RunUpdate};
use crate::{TrainError, TrainRequest, coordinate, train_local};

/// Runs to the end; the channel is closed when nothing more will be told.
pub(super) fn start(
    prepared: &Prepared,
    workers: Workers,
    dataset: &Dataset,
    lanes: Lanes,
    updates: mpsc::UnboundedSender<RunUpdate>,
    interruption: Interruption,
    console: Console,
) -> Result<Outcome, Failure> {
    let runtime = runtime::of_role("coordinator")?;
    runtime.block_on(async {
        let request = request(prepared, dataset, lanes, updates, console).await?;
        // The run hears the next signal itself; one that came before it could has asked to stop.
        let stop = interruption.stop.clone();
        drop(interruption);
        stop.check()?;
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
    let newest = beginning(prepared, &store, console).await?;
    let best = newest.as_ref().and_then(|manifest| manifest.best);
    let best_map = best.map(|best| best.average_map);
    let mut judge = Judge::new(dataset, &config.evaluation, lanes, prepared.folder.results(), best_map);
    let mut committer = ChainCommitter {
        store,
        appender: None,
        retention: Retention { newest: config.checkpoint.keep },
        best_weights: prepared.folder.best_weights(),
        best,
        written: None,
    };
    if newest.is_some()
        && let Err(failure) = committer.fetch_best().await
    {
        console.warn(&format!("the best weights so far are lost: {}", failure.message));
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("the path of this program cannot be found out: {error}")))?;
    // What is allowed for this start is not allowed for the next: the stored settings keep what the user wrote.
    let mut allowed = prepared.resolved.clone();
    allowed.config.checkpoint.allow_changes = prepared.allow_changes;
    let (stored, settings) = (prepared.folder.stored_settings_file(), prepared.resolved.to_json());
    Ok(TrainRequest {
        settings: allowed,
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

/// The checkpoint that a run begins at, and nothing for one that begins at its start. A store that holds a run takes no second
/// one of its name: that would sweep the first one's checkpoints.
async fn beginning(
    prepared: &Prepared,
    store: &CheckpointStore,
    console: Console,
) -> Result<Option<Manifest>, Failure> {
    let (config, folder) = (&prepared.resolved.config, shell(&prepared.folder.0));
    let place = match config.checkpoint.url.trim_end_matches('/') {
        "" => prepared.folder.0.display().to_string(),
        url => format!("{url}/{}", config.run.name),
    };
    if prepared.origin == Origin::Nothing {
        let held = store.chain().await?.checkpoints().next().is_some();
        let failure = Failure::new(format!("`{place}` already holds the checkpoints of a run")).hint(format!(
            "go on with `longtake train CONFIG --resume {folder}`, or name another run with `--set run.name=...`"
        ));
        return if held { Err(failure.never_restart()) } else { Ok(None) };
    }
    let newest = newest(store, console).await?;
    if newest.is_none() && prepared.origin == Origin::Store {
        let failure = Failure::new(format!("`{place}` holds no whole checkpoint to go on from"));
        return Err(failure.hint("check `checkpoint.url` and `run.name`").never_restart());
    }
    Ok(newest)
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
