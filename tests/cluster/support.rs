//! A run of fake workers, and what it is watched with.

#![allow(dead_code, reason = "shared by the suite and by its helper program, which use different halves")]
#![allow(clippy::print_stdout, reason = "the helper program tells the suite that it trains")]

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use longtake_coordinator::driver::{Committer, Fence, Report, Sealed, Validation, Whole};
use longtake_coordinator::run::command::CommitRequest;
use longtake_coordinator::run::event::StopSource;
use longtake_coordinator::signals::Signals;
use longtake_coordinator::updates::{Outcome, RunUpdate};
use longtake_coordinator::{TrainError, TrainRequest, coordinate as coordinate_only, train_local};
use longtake_shared::config::{Resolved, RunConfig};
use longtake_shared::hint::Failure;
use longtake_shared::ids::{Epoch, Generation, Incarnation};
use longtake_shared::units::Seconds;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Longer than any test may take on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// A chain of checkpoints in memory.
#[derive(Clone, Default)]
pub(crate) struct Chain {
    pub(crate) commits: Arc<Mutex<Vec<CommitRequest>>>,
    pub(crate) fail: bool,
    pub(crate) fences: Arc<Mutex<u64>>,
}

impl Committer for Chain {
    fn fence(&mut self) -> BoxFuture<'_, Result<Fence, Failure>> {
        let mut fences = self.fences.lock().expect("nobody panics");
        *fences += 1;
        let fence = Fence { incarnation: Incarnation(*fences), generation: Generation(4) };
        async move { Ok(fence) }.boxed()
    }

    fn commit(&mut self, request: CommitRequest) -> BoxFuture<'_, Result<Sealed, Failure>> {
        let result = if self.fail {
            Err(Failure::new("the store is full"))
        } else {
            let mut commits = self.commits.lock().expect("nobody panics");
            commits.push(request);
            Ok(Sealed { sequence: commits.len() as u64, manifest_json: "{}".to_owned() })
        };
        async move { result }.boxed()
    }

    fn find_whole(&mut self) -> BoxFuture<'_, Result<Whole, Failure>> {
        async { Ok(Whole::default()) }.boxed()
    }
}

/// A run that goes on in the background.
pub(crate) struct Run {
    pub(crate) chain: Chain,
    pub(crate) validations: Arc<Mutex<Vec<Validation>>>,
    pub(crate) signals: mpsc::Sender<StopSource>,
    pub(crate) updates: mpsc::UnboundedReceiver<RunUpdate>,
    pub(crate) seen: Vec<RunUpdate>,
    outcome: JoinHandle<Result<Outcome, TrainError>>,
}

impl Run {
    /// Starts a run whose workers are `program behaviour`.
    pub(crate) fn start(folder: &Path, program: &Path, behaviour: &str, workers: usize) -> Self {
        Self::with_chain(folder, program, behaviour, workers, Chain::default())
    }

    pub(crate) fn with_chain(
        folder: &Path,
        program: &Path,
        behaviour: &str,
        workers: usize,
        chain: Chain,
    ) -> Self {
        let command = vec![OsString::from(program), behaviour.into()];
        Self::launch(folder, workers, chain, command, |request| tokio::spawn(train_local(request)))
    }

    /// Starts a coordinator that waits for agents from elsewhere.
    pub(crate) fn without_agent(folder: &Path, workers: usize) -> Self {
        let coordinator = |request| tokio::spawn(coordinate_only(request));
        Self::launch(folder, workers, Chain::default(), Vec::new(), coordinator)
    }

    fn launch(
        folder: &Path,
        workers: usize,
        chain: Chain,
        worker_command: Vec<OsString>,
        start: impl FnOnce(TrainRequest) -> JoinHandle<Result<Outcome, TrainError>>,
    ) -> Self {
        let (signals, source) = Signals::channel();
        let (sender, updates) = mpsc::unbounded_channel();
        let validations = Arc::new(Mutex::new(Vec::new()));
        let validated = Arc::clone(&validations);
        let request = TrainRequest {
            settings: Resolved::from(config(workers)),
            run_folder: folder.to_owned(),
            worker_command,
            resume: None,
            committer: Box::new(chain.clone()),
            reporter: Box::new(move |validation| {
                validated.lock().expect("nobody panics").push(validation);
                let report = serde_json::json!({ "videos": 1 });
                Ok(Report { epoch: Epoch(1), average_map: 0.25, best: true, report })
            }),
            updates: sender,
            begun: Box::new(|| Ok(())),
            signals: source,
        };
        let outcome = start(request);
        Self { chain, validations, signals, updates, seen: Vec::new(), outcome }
    }

    /// Waits for an update of that kind.
    pub(crate) async fn wait_for(&mut self, wanted: impl Fn(&RunUpdate) -> bool) -> RunUpdate {
        let wait = async {
            loop {
                let update = self.updates.recv().await.expect("the run goes on");
                self.seen.push(update.clone());
                if wanted(&update) {
                    return update;
                }
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the update comes in time")
    }

    /// Waits for the end.
    pub(crate) async fn end(&mut self) -> Outcome {
        let end = async {
            while let Some(update) = self.updates.recv().await {
                self.seen.push(update);
            }
            (&mut self.outcome).await
        };
        let end = tokio::time::timeout(DEADLINE, end).await.expect("the run ends in time");
        end.expect("the run does not panic").expect("the run begins")
    }

    pub(crate) async fn refused(self) -> TrainError {
        let end = tokio::time::timeout(DEADLINE, self.outcome).await.expect("the run ends in time");
        end.expect("the run does not panic").expect_err("the run is refused")
    }
}

fn config(workers: usize) -> RunConfig {
    let mut config = RunConfig::default();
    config.run.name = "fake".into();
    config.cluster.workers = workers;
    config.cluster.threads = 1;
    // A loaded machine is slow; leases are judged by the engine's own tests.
    config.cluster.lease = Seconds(10.0);
    config.train.lanes = 8;
    config
}

/// A run in a process of its own: tells when it trains, then goes on for ever.
pub(crate) fn coordinate(folder: &Path) {
    let program = std::env::current_exe().expect("this program has a path");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut run = Run::start(folder, &program, "stuck", 2);
        run.wait_for(|update| matches!(update, RunUpdate::Formed { .. })).await;
        println!("training");
        run.end().await;
    });
}
