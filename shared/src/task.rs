//! Supervised async tasks. The kind of a task declares what happens when it is stopped, fails or panics.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use crate::hint::with_causes;

/// The kinds of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// Serves agents and operators in the coordinator.
    CoordinatorServer,
    /// Commits checkpoints.
    Committer,
    /// Computes the reports of validations.
    Reporter,
    /// The agent of this node.
    Agent,
    /// Serves the workers of an agent.
    WorkerServer,
}

/// What happens to a task when its group stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// Its [`StopToken`] fires, and the group waits for it.
    Wait,
    /// It is dropped at its next await point.
    Drop,
}

/// What happens to the group when a task fails. A panic always ends the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The group fails.
    EndGroup,
    /// It is logged.
    Log,
}

impl TaskKind {
    /// Its behaviour on stop and on error.
    pub fn fate(self) -> (OnStop, OnError) {
        match self {
            Self::CoordinatorServer | Self::Agent | Self::WorkerServer => (OnStop::Wait, OnError::EndGroup),
            // Both fail only after the driver loop has ended, which ends the group in any case.
            Self::Committer => (OnStop::Wait, OnError::Log),
            Self::Reporter => (OnStop::Drop, OnError::Log),
        }
    }

    /// Its name within a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::CoordinatorServer => "the coordinator's server",
            Self::Committer => "the checkpoint committer",
            Self::Reporter => "the validation reporter",
            Self::Agent => "the agent",
            Self::WorkerServer => "the agent's server",
        }
    }
}

/// A task that has failed or panicked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {how}", kind.name())]
pub struct TaskFailure {
    /// Kind of the task.
    pub kind: TaskKind,
    /// The failure, as the rest of a sentence.
    pub how: String,
}

/// Fires when the group of a task stops.
#[derive(Debug, Clone)]
pub struct StopToken(watch::Receiver<bool>);

impl StopToken {
    /// Waits until the group stops.
    pub async fn stopped(&mut self) {
        // A dropped group counts as stopped.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}

/// Tasks that end together.
pub struct TaskGroup {
    tasks: JoinSet<Result<(), String>>,
    kinds: HashMap<Id, TaskKind>,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for TaskGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl Default for TaskGroup {
    fn default() -> Self {
        Self { tasks: JoinSet::new(), kinds: HashMap::new(), stop: watch::Sender::new(false) }
    }
}

impl TaskGroup {
    /// A token that fires when the group stops.
    pub fn stop_token(&self) -> StopToken {
        StopToken(self.stop.subscribe())
    }

    /// Starts a task.
    pub fn spawn<E: std::error::Error>(
        &mut self,
        kind: TaskKind,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let mut token = self.stop_token();
        let handle = self.tasks.spawn(async move {
            let result = match kind.fate().0 {
                OnStop::Wait => task.await,
                OnStop::Drop => tokio::select! {
                    biased;
                    () = token.stopped() => Ok(()),
                    result = task => result,
                },
            };
            result.map_err(|error| with_causes(&error))
        });
        self.kinds.insert(handle.id(), kind);
    }

    /// Waits for the next failure that ends the group; pending while there is none. Cancel-safe.
    pub async fn next_failure(&mut self) -> TaskFailure {
        loop {
            match self.tasks.join_next_with_id().await {
                Some(ended) => {
                    if let Some(failure) = self.judge(ended) {
                        return failure;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Stops all tasks, waits up to `grace` for them and drops the rest. Returns the failures during the stop.
    pub async fn stop(mut self, grace: Duration) -> Vec<TaskFailure> {
        self.stop.send_replace(true);
        let mut failures = Vec::new();
        let deadline = tokio::time::Instant::now() + grace;
        loop {
            match tokio::time::timeout_at(deadline, self.tasks.join_next_with_id()).await {
                Ok(Some(ended)) => failures.extend(self.judge(ended)),
                Ok(None) => return failures,
                Err(_) => {
                    tracing::warn!(tasks = self.tasks.len(), "tasks did not end in time");
                    self.tasks.shutdown().await;
                    return failures;
                }
            }
        }
    }

    /// Decides whether the end of a task is a failure of the group.
    fn judge(&mut self, ended: Result<(Id, Result<(), String>), JoinError>) -> Option<TaskFailure> {
        let (id, how) = match ended {
            Ok((id, Ok(()))) => (id, None),
            Ok((id, Err(error))) => (id, Some((format!("failed: {error}"), false))),
            Err(error) if error.is_cancelled() => (error.id(), None),
            Err(error) => (error.id(), Some(("panicked".to_owned(), true))),
        };
        let kind = self.kinds.remove(&id)?;
        let (how, panicked) = how?;
        if panicked || kind.fate().1 == OnError::EndGroup {
            return Some(TaskFailure { kind, how });
        }
        tracing::warn!(task = kind.name(), how, "a task has ended");
        None
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_failed_task_is_told_with_its_kind_and_cause() {
        runtime().block_on(async {
            let mut group = TaskGroup::default();
            group.spawn(TaskKind::Reporter, async { Err(std::io::Error::other("only logged")) });
            group.spawn(TaskKind::Agent, async { Err(std::io::Error::other("disk full")) });
            let failure = group.next_failure().await;
            assert_eq!(failure.to_string(), "the agent failed: disk full");
        });
    }

    #[test]
    fn a_panic_is_a_failure() {
        runtime().block_on(async {
            let mut group = TaskGroup::default();
            group.spawn(TaskKind::Reporter, async {
                panic!("a test panics on purpose") as Result<(), fmt::Error>
            });
            assert_eq!(group.next_failure().await.kind, TaskKind::Reporter);
        });
    }

    #[test]
    fn stop_waits_for_tasks_that_are_told_and_drops_the_others() {
        runtime().block_on(async {
            let mut group = TaskGroup::default();
            let mut token = group.stop_token();
            let (told, heard) = oneshot::channel();
            group.spawn(TaskKind::Agent, async move {
                token.stopped().await;
                told.send(()).map_err(|()| fmt::Error)
            });
            group.spawn(TaskKind::Reporter, std::future::pending::<Result<(), fmt::Error>>());
            assert_eq!(group.stop(Duration::from_mins(1)).await, []);
            assert_eq!(heard.await, Ok(()));
        });
    }

    #[test]
    fn what_does_not_end_in_time_is_dropped() {
        runtime().block_on(async {
            let mut group = TaskGroup::default();
            group.spawn(TaskKind::Agent, std::future::pending::<Result<(), fmt::Error>>());
            assert_eq!(group.stop(Duration::ZERO).await, []);
        });
    }
}
