//! A whole run: coordinator and agent in this process, or each in its own, as schedulers want it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longtake_shared::config::{Resolved, RunConfig};
use longtake_shared::hint::{Failure, Hint};
use longtake_shared::ids::{Incarnation, RunId};
use longtake_shared::task::{TaskGroup, TaskKind};
use tokio::sync::mpsc;

use crate::agent::core::OnLoss;
use crate::agent::{self, AgentOptions};
use crate::driver::{Committer, Driver, DriverParts, Fence, INPUT_QUEUE, Reporter, Resume};
use crate::journal::{Journal, JournalError, Record};
use crate::launch::local::LocalLauncher;
use crate::run::{Orphan, Settings};
use crate::server::address::{AddressError, CoordinatorAddress, FolderLock, Whereabouts};
use crate::server::convert::FormContext;
use crate::server::{self, ServerError};
use crate::signals::Signals;
use crate::updates::{Outcome, RunUpdate};

/// How long the parts of an ended run may take to end.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What is done when nothing keeps a run from beginning any more.
pub type Begun = Box<dyn FnOnce() -> Result<(), Failure> + Send>;

/// Everything a run on this machine needs.
pub struct TrainRequest {
    /// The resolved configuration.
    pub config: RunConfig,
    /// The run's folder; made where it does not exist.
    pub run_folder: PathBuf,
    /// Program and first arguments of a worker, such as `longtake worker`.
    pub worker_command: Vec<OsString>,
    /// The checkpoint to go on from.
    pub resume: Option<Resume>,
    /// What makes checkpoints real.
    pub committer: Box<dyn Committer>,
    /// What makes reports of validations.
    pub reporter: Reporter,
    /// Who watches: every step arrives.
    pub updates: mpsc::UnboundedSender<RunUpdate>,
    /// Called once the run is this process's: its folder is locked and its address is taken.
    pub begun: Begun,
    /// What stops the run.
    pub signals: Signals,
}

/// Why a run could not even begin.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A worker without a lane would have nothing to do.
    #[error("`cluster.workers` is {workers}, but `train.lanes` is {lanes}: every worker needs a lane")]
    TooManyWorkers {
        /// Workers asked for.
        workers: usize,
        /// Lanes there are.
        lanes: usize,
    },
    /// A run needs a worker.
    #[error("`cluster.workers` is 0: a run needs a worker")]
    NoWorkers,
    /// The lease is no time.
    #[error("`cluster.lease` is {0} s, which is not a time that an agent could keep")]
    Lease(f64),
    /// The folder is taken, or the address cannot be told.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The server cannot start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The run's store of checkpoints cannot be used.
    #[error("{}", .0.message)]
    Fence(Failure),
    /// What should be done at its beginning cannot be.
    #[error("{}", .0.message)]
    Begun(Failure),
    /// The store gave an incarnation that this run has had.
    #[error("the store of checkpoints gave {won}, but this run has already had {had}")]
    Incarnation {
        /// What the store gave.
        won: Incarnation,
        /// What the journal knows.
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
                "`checkpoint.url` does not belong to this run's folder: put both back together".to_owned(),
            ),
        }
    }
}

/// Runs to the end of the run, with coordinator and agent in this process. No process, thread or socket of it is left when
/// this returns.
///
/// # Errors
/// The run could not even begin; how it ends otherwise is its outcome.
pub async fn train_local(request: TrainRequest) -> Result<Outcome, TrainError> {
    run(request, true).await
}

/// Runs to the end of the run, with the coordinator in this process and agents elsewhere: see [`agent::join`].
///
/// # Errors
/// The run could not even begin; how it ends otherwise is its outcome.
pub async fn coordinate(request: TrainRequest) -> Result<Outcome, TrainError> {
    run(request, false).await
}

async fn run(request: TrainRequest, with_agent: bool) -> Result<Outcome, TrainError> {
    let TrainRequest {
        config,
        run_folder,
        worker_command,
        resume,
        mut committer,
        reporter,
        updates,
        begun,
        mut signals,
    } = request;
    let settings = settings(&config, resume.as_ref())?;
    let config_json = Resolved::from(config.clone()).to_json();
    let lock = FolderLock::take(&run_folder)?;
    let (journal, fence, orphan) = tokio::select! {
        biased;
        _ = signals.next() => {
            begun().map_err(TrainError::Begun)?;
            let step = settings.started_from.map(|(_, step)| step).unwrap_or_default();
            return Ok(Outcome::Preempted { step });
        }
        begun = begin(&run_folder, &config_json, committer.as_mut()) => begun?,
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
            launcher: LocalLauncher { command: worker_command, threads, workers },
            run_folder: run_folder.clone(),
        };
        let agent = agent::run(agent, tasks.stop_token());
        tasks.spawn(TaskKind::Agent, async move { agent.await.map(drop) });
    }
    let context = FormContext {
        run_folder: run_folder.to_string_lossy().into_owned(),
        config_json,
        resume_json: resume.map(|resume| resume.manifest.to_string()),
    };
    let inputs = (sender, receiver);
    // Workers of an agent in this process would have died with it.
    let orphan = orphan.filter(|_| !with_agent);
    let parts =
        DriverParts { settings, fence, orphan, journal, context, inputs, updates, committer, reporter };
    let outcome = Driver::new(parts, &mut tasks).run(&mut signals, &mut tasks).await;
    for failure in tasks.stop(STOP_GRACE).await {
        tracing::debug!(%failure, "a task failed while the run ended");
    }
    Ok(outcome)
}

/// Wins an incarnation and writes it down. The generation of the fence is the newest of chain and journal; the generation
/// that may have outlived the last coordinator is the journal's.
async fn begin(
    run_folder: &Path,
    config_json: &str,
    committer: &mut dyn Committer,
) -> Result<(Journal, Fence, Option<Orphan>), TrainError> {
    let (mut journal, history) = Journal::open(run_folder)?;
    if history.torn_bytes > 0 {
        tracing::warn!(bytes = history.torn_bytes, "the end of the journal was torn off");
    }
    let (had, journaled) = history.newest();
    let Fence { incarnation, generation } = committer.fence().await.map_err(TrainError::Fence)?;
    if incarnation <= had {
        return Err(TrainError::Incarnation { won: incarnation, had });
    }
    let config_hash = blake3::hash(config_json.as_bytes()).to_hex().to_string();
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
