//! A whole run on this machine: coordinator and agent in this process, workers as its children.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use longtake_shared::config::RunConfig;
use longtake_shared::hint::{Failure, Hint};
use longtake_shared::ids::{Incarnation, RunId, Step};
use longtake_shared::protocol::Stage;
use longtake_shared::task::{TaskGroup, TaskKind};
use tokio::sync::mpsc;

use crate::agent::{self, AgentOptions};
use crate::driver::{Committer, Driver, DriverParts, INPUT_QUEUE, Reporter};
use crate::journal::{Journal, JournalError, Record};
use crate::launch::local::LocalLauncher;
use crate::run::Settings;
use crate::server::address::{AddressError, CoordinatorAddress, FolderLock};
use crate::server::convert::FormContext;
use crate::server::{self, ServerError};
use crate::signals::Signals;
use crate::updates::{Outcome, RunUpdate};

/// How long the parts of an ended run may take to end.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// The folder of the workers' logs, in the run's folder.
pub const LOG_FOLDER: &str = "logs";

/// The checkpoint a run goes on from.
#[derive(Debug, Clone, PartialEq)]
pub struct Resume {
    /// The stage it was saved in.
    pub stage: Stage,
    /// Steps of it done.
    pub step: Step,
    /// What the workers are given.
    pub manifest: serde_json::Value,
}

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
    /// Who watches. Progress is dropped where there is no room, anything else waits for it.
    pub updates: mpsc::Sender<RunUpdate>,
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
    /// The store gave an incarnation that this run has had.
    #[error("the store of checkpoints gave {won}, but this run has already had {had}")]
    Incarnation {
        /// What the store gave.
        won: Incarnation,
        /// What the journal knows.
        had: Incarnation,
    },
    /// The configuration cannot be written down.
    #[error("the configuration cannot be written as JSON")]
    Config(#[source] serde_json::Error),
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
            Self::Fence(failure) => failure.hint.clone(),
            Self::Incarnation { .. } => {
                Some("`checkpoint.url` does not belong to this run's folder: put both back together".to_owned())
            }
            Self::Config(_) => None,
        }
    }
}

/// Runs to the end of the run. No process, thread or socket of it is left when this returns.
///
/// # Errors
/// The run could not even begin; how it ends otherwise is its outcome.
pub async fn train_local(request: TrainRequest) -> Result<Outcome, TrainError> {
    let TrainRequest { config, run_folder, worker_command, resume, mut committer, reporter, updates, mut signals } =
        request;
    let settings = settings(&config, resume.as_ref())?;
    let config_json = serde_json::to_string(&config).map_err(TrainError::Config)?;
    let lock = FolderLock::take(&run_folder)?;
    let (mut journal, history) = Journal::open(&run_folder)?;
    if history.torn_bytes > 0 {
        tracing::warn!(bytes = history.torn_bytes, "the end of the journal was torn off");
    }
    let (had, journaled) = history.newest();
    let fence = committer.fence().await.map_err(TrainError::Fence)?;
    if fence.incarnation <= had {
        return Err(TrainError::Incarnation { won: fence.incarnation, had });
    }
    let config_hash = blake3::hash(config_json.as_bytes()).to_hex().to_string();
    journal.append(&Record::Started { incarnation: fence.incarnation, config_hash })?;

    let (listener, address) = server::bind(&config.cluster.listen).await?;
    let token = uuid::Uuid::new_v4().simple().to_string();
    let run = settings.run.clone();
    lock.publish(&CoordinatorAddress {
        run: run.clone(),
        incarnation: fence.incarnation,
        address,
        pid: std::process::id(),
        token: token.clone(),
    })?;
    let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
    let mut tasks = TaskGroup::default();
    let stop = tasks.stop_token();
    tasks.spawn(
        TaskKind::CoordinatorServer,
        server::serve(listener, run.clone(), token.clone(), sender.clone(), stop),
    );
    let launcher =
        LocalLauncher { command: worker_command, threads: config.cluster.threads, workers: settings.workers };
    let agent = AgentOptions {
        run,
        coordinator: address,
        token,
        slots: settings.workers,
        launcher,
        log_folder: run_folder.join(LOG_FOLDER),
    };
    let stop = tasks.stop_token();
    tasks.spawn(TaskKind::Agent, agent::run(agent, stop));
    let parts = DriverParts {
        settings,
        incarnation: fence.incarnation,
        generation: journaled.max(fence.generation),
        journal,
        context: FormContext {
            run_folder: run_folder.to_string_lossy().into_owned(),
            config_json,
            resume_json: resume.map(|resume| resume.manifest.to_string()),
        },
        inputs: (sender, receiver),
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
    Ok(Settings {
        run: RunId(config.run.name.clone()),
        workers,
        lanes,
        lease,
        gather_timeout: config.cluster.gather_timeout.duration(),
        started_from: resume.map(|resume| (resume.stage, resume.step)),
    })
}
