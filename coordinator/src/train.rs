//! A whole run: coordinator and agent in one process, or each in its own for a scheduler.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longtake_shared::config::{Resolved, RunConfig};
use longtake_shared::hint::{Failure, Hint};
use longtake_shared::ids::{Incarnation, RunId};
use longtake_shared::protocol::GenerationInputs;
use longtake_shared::task::{TaskGroup, TaskKind};
use tokio::sync::mpsc;

use crate::agent::core::OnLoss;
use crate::agent::worker_command::WorkerCommand;
use crate::agent::{self, AgentOptions};
use crate::driver::{Committer, Driver, DriverParts, Fence, INPUT_QUEUE, Reporter, Resume};
use crate::journal::{Journal, JournalError};
use crate::run::record::Record;
use crate::run::{Orphan, Settings};
use crate::server::address::{AddressError, CoordinatorAddress, FolderLock, Whereabouts};
use crate::server::{self, ServerError};
use crate::signals::Signals;
use crate::updates::{Outcome, RunUpdate};

/// Longest wait for the tasks of an ended run.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// An action that is executed once nothing can prevent the run from starting.
pub type Begun = Box<dyn FnOnce() -> Result<(), Failure> + Send>;

/// The parts of a run.
pub struct TrainRequest {
    /// The validated settings, with their sources.
    pub settings: Resolved,
    /// The run's folder; created if absent.
    pub run_folder: PathBuf,
    /// Program and first arguments of a worker, such as `longtake worker`.
    pub worker_command: Vec<OsString>,
    /// The checkpoint to resume from.
    pub resume: Option<Resume>,
    /// The committer of checkpoints.
    pub committer: Box<dyn Committer>,
    /// The reporter of validations.
    pub reporter: Reporter,
    /// The observers of the run; every step arrives.
    pub updates: mpsc::UnboundedSender<RunUpdate>,
    /// Called once the folder is locked and the address is bound.
    pub begun: Begun,
    /// The stop signals.
    pub signals: Signals,
}

/// The reason why a run could not start.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// More workers than lanes.
    #[error("`cluster.workers` is {workers}, but `train.lanes` is {lanes}: every worker needs a lane")]
    TooManyWorkers {
        /// Configured workers.
        workers: usize,
        /// Configured lanes.
        lanes: usize,
    },
    /// No workers.
    #[error("`cluster.workers` is 0: a run needs a worker")]
    NoWorkers,
    /// The lease is too short.
    #[error("`cluster.lease` is {0} s, which is too short; the minimum is 10 ms")]
    Lease(f64),
    /// The folder is in use, or the address cannot be published.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The server cannot start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The checkpoint store cannot be used.
    #[error("{}", .0.message)]
    Fence(Failure),
    /// The action at the start failed.
    #[error("{}", .0.message)]
    Begun(Failure),
    /// The checkpoint store assigned a used incarnation.
    #[error("the checkpoint store assigned {won}, but this run has already used {had}")]
    Incarnation {
        /// The assigned incarnation.
        won: Incarnation,
        /// The newest incarnation in the journal.
        had: Incarnation,
    },
}

impl Hint for TrainError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooManyWorkers { lanes, .. } => {
                Some(format!("set `cluster.workers` to at most {lanes}, or raise `train.lanes`"))
            }
            Self::NoWorkers => Some("set `cluster.workers` to at least 1".to_owned()),
            Self::Lease(_) => Some("set `cluster.lease` to a few seconds".to_owned()),
            Self::Address(error) => error.hint(),
            Self::Journal(error) => error.hint(),
            Self::Server(error) => error.hint(),
            Self::Fence(failure) | Self::Begun(failure) => failure.hint.clone(),
            Self::Incarnation { .. } => Some(
                "`checkpoint.url` does not belong to this run's folder: use the store with which the run was started".to_owned(),
            ),
        }
    }
}

/// Executes a run with coordinator and agent in this process. No process, thread or socket of it is left when this returns.
///
/// # Errors
/// The run could not start; any later failure is its outcome.
pub async fn train_local(request: TrainRequest) -> Result<Outcome, TrainError> {
    run(request, true).await
}

/// Executes a run with the coordinator in this process and agents in others: see [`agent::join`].
///
/// # Errors
/// The run could not start; any later failure is its outcome.
pub async fn coordinate(request: TrainRequest) -> Result<Outcome, TrainError> {
    run(request, false).await
}

async fn run(request: TrainRequest, with_agent: bool) -> Result<Outcome, TrainError> {
    let TrainRequest {
        settings: resolved,
        run_folder,
        worker_command,
        resume,
        mut committer,
        reporter,
        updates,
        begun,
        mut signals,
    } = request;
    let config = &resolved.config;
    let settings = settings(config, resume.as_ref())?;
    let lock = FolderLock::take(&run_folder)?;
    let (journal, fence, orphan) = tokio::select! {
        biased;
        _ = signals.next() => {
            begun().map_err(TrainError::Begun)?;
            let step = settings.started_from.map(|(_, step)| step).unwrap_or_default();
            return Ok(Outcome::Preempted { step });
        }
        begun = begin(&run_folder, config, committer.as_mut()) => begun?,
    };
    let (listener, address) = server::bind(&config.cluster.listen).await?;
    let found = CoordinatorAddress {
        run: settings.run.clone(),
        incarnation: fence.incarnation,
        address,
        pid: std::process::id(),
        token: uuid::Uuid::new_v4().simple().to_string(),
    };
    begun().map_err(TrainError::Begun)?;
    lock.publish(&found)?;
    let mut tasks = TaskGroup::default();
    let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
    let serve =
        server::serve(listener, found.run.clone(), found.token.clone(), sender.clone(), tasks.stop_token());
    tasks.spawn(TaskKind::CoordinatorServer, serve);
    if with_agent {
        let (threads, workers) = (config.cluster.threads, settings.workers);
        let slots = settings.processes();
        let agent = AgentOptions {
            coordinator: Whereabouts::Fixed(found.into()),
            on_loss: OnLoss::End,
            slots,
            worker_command: WorkerCommand { program: worker_command, threads, workers },
            run_folder: run_folder.clone(),
        };
        let agent = agent::run(agent, tasks.stop_token());
        tasks.spawn(TaskKind::Agent, async move { agent.await.map(drop) });
    }
    let generation_inputs = GenerationInputs {
        run_folder: run_folder.to_string_lossy().into_owned(),
        settings_json: resolved.to_json(),
        resume_json: resume.map(|resume| resume.manifest.to_string()),
    };
    let inputs = (sender, receiver);
    // The workers of an agent in this process ended with it.
    let orphan = orphan.filter(|_| !with_agent);
    let parts = DriverParts {
        settings,
        fence,
        orphan,
        journal,
        generation_inputs,
        inputs,
        updates,
        committer,
        reporter,
    };
    let outcome = Driver::new(parts, &mut tasks).run(&mut signals, &mut tasks).await;
    for failure in tasks.stop(STOP_GRACE).await {
        tracing::debug!(%failure, "a task failed while the run ended");
    }
    Ok(outcome)
}

/// Claims an incarnation and records it. The generation of the fence is the newest of chain and journal; the journal names the
/// generation that may still run.
async fn begin(
    run_folder: &Path,
    config: &RunConfig,
    committer: &mut dyn Committer,
) -> Result<(Journal, Fence, Option<Orphan>), TrainError> {
    let (mut journal, history) = Journal::open(run_folder)?;
    if history.torn_bytes > 0 {
        tracing::warn!(
            bytes = history.torn_bytes,
            "the journal ended with an incomplete record, which was removed"
        );
    }
    let (had, journaled) = history.newest();
    let Fence { incarnation, generation } = committer.fence().await.map_err(TrainError::Fence)?;
    if incarnation <= had {
        return Err(TrainError::Incarnation { won: incarnation, had });
    }
    // The settings alone: where a value was set does not change the run.
    let settings_json = Resolved::from(config.clone()).to_json();
    let config_hash = blake3::hash(settings_json.as_bytes()).to_hex().to_string();
    journal.append(&Record::Started { incarnation, config_hash })?;
    let fence = Fence { incarnation, generation: generation.max(journaled) };
    Ok((journal, fence, history.orphan()))
}

fn settings(config: &RunConfig, resume: Option<&Resume>) -> Result<Settings, TrainError> {
    let (workers, lanes) = (config.cluster.workers, config.train.lanes);
    if workers == 0 {
        return Err(TrainError::NoWorkers);
    }
    if workers > lanes {
        return Err(TrainError::TooManyWorkers { workers, lanes });
    }
    let lease = config.cluster.lease.duration();
    if lease < Duration::from_millis(10) {
        return Err(TrainError::Lease(config.cluster.lease.0));
    }
    let cluster = &config.cluster;
    Ok(Settings {
        run: RunId(config.run.name.clone()),
        workers,
        fewest: cluster.fewest_workers(),
        spares: cluster.spares,
        lanes,
        recovery: cluster.recovery,
        lease,
        gather_timeout: cluster.gather_timeout.duration(),
        coordinator_grace: cluster.coordinator_grace.duration(),
        phase_deadline: cluster.phase_deadline.duration(),
        stop_grace: cluster.stop_grace.duration(),
        started_from: resume.map(|resume| (resume.stage, resume.step)),
    })
}
