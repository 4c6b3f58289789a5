//! The agent of a node: starts workers, watches them, keeps their logs, and holds the node's lease with the coordinator.
//!
//! ```text
//!  coordinator <--tonic, TCP--> agent <--tonic, Unix socket--> worker
//!                                 |  pidfd, log, flight recorder  |
//!                                 +-------------------------------+
//! ```
//!
//! [`crate::agent::core`] decides, and this module executes. A worker never outlives its agent: the kernel kills it when the
//! agent's process ends, and the agent kills it when its task ends in any other way, panics included.

/// The decisions of an agent as a pure state machine.
pub mod core;

/// An agent in a process of its own.
pub mod join;

/// The command line of a worker process.
pub mod worker_command;

mod children;
mod line;
mod log;
mod socket;
mod worker_link;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use longtake_shared::hint::{ExitCode, Hint};
use longtake_shared::ids::{AgentId, WorkerId};
use longtake_shared::protocol::{
    AgentMessage, AgentReport, ExitCause, WorkerMessage, WorkerOrder, WorkerReport, flight,
};
use longtake_shared::task::{StopToken, TaskFailure, TaskGroup, TaskKind};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use self::core::{AgentCore, AgentEnd, AgentIdentity, AgentInput, AgentOutput, LinkId, OnLoss};
use crate::server::address::Whereabouts;
use children::{Children, Running};
use line::Line;
use socket::SocketFolder;
use worker_command::{Place, WorkerCommand};
use worker_link::WorkerInput;

/// Capacity of the queue of workers' messages.
const WORKER_QUEUE: usize = 256;

/// Longest wait for the tasks of an ending agent.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The folder of the workers' logs, in the run's folder.
pub const LOG_FOLDER: &str = "logs";

/// The options of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOptions {
    /// How to find the coordinator.
    pub coordinator: Whereabouts,
    /// Reaction to the loss of the coordinator.
    pub on_loss: OnLoss,
    /// Number of workers it can start.
    pub slots: usize,
    /// The command that starts them.
    pub worker_command: WorkerCommand,
    /// The run's folder, for logs and flight recorders of its workers.
    pub run_folder: PathBuf,
}

/// A failure that ends an agent early.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A socket, folder, thread or file cannot be created.
    #[error("the agent cannot {verb}")]
    Io {
        /// The operation that failed.
        verb: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The coordinator refuses it.
    #[error("the coordinator refuses the agent: {0}")]
    Refused(String),
    /// The coordinator was lost without a goodbye.
    #[error("the agent has lost the coordinator: {0}")]
    Lost(String),
    /// The coordinator has not come back within the grace.
    #[error("the agent has been without a coordinator for {} s: {reason}", grace.as_secs())]
    GraceOver {
        /// The grace.
        grace: Duration,
        /// The result of the last attempt to connect.
        reason: String,
    },
    /// One of its tasks has failed.
    #[error(transparent)]
    Task(#[from] TaskFailure),
}

impl Hint for AgentError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { .. } | Self::Refused(_) | Self::Lost(_) | Self::Task(_) => None,
            Self::GraceOver { .. } => Some(
                "check that the coordinator runs and that this machine can reach it; restart it with \
                 `longtake coordinator --resume`, then restart this agent"
                    .to_owned(),
            ),
        }
    }
}

/// Runs an agent until the coordinator says goodbye, or until it is stopped. No worker is left when it returns. Returns the exit
/// code of the run.
///
/// # Errors
/// The coordinator is lost or refuses the agent, or a resource of the agent cannot be created.
pub async fn run(options: AgentOptions, mut stop: StopToken) -> Result<ExitCode, AgentError> {
    socket::remove_leftovers();
    let folder =
        SocketFolder::make().map_err(|source| AgentError::Io { verb: "create its socket", source })?;
    let children = Children::new()
        .map_err(|source| AgentError::Io { verb: "start the thread that starts workers", source })?;
    let (inputs, from_workers) = mpsc::channel(WORKER_QUEUE);
    let mut tasks = TaskGroup::default();
    let listener =
        folder.listen().map_err(|source| AgentError::Io { verb: "listen on its socket", source })?;
    tasks.spawn(TaskKind::WorkerServer, worker_link::serve(listener, inputs, tasks.stop_token()));

    let (core, first) = AgentCore::new(identity(&options), flight::now());
    let mut agent = Agent {
        line: Line::new(options.coordinator.clone()),
        options,
        folder,
        children,
        core,
        workers: BTreeMap::new(),
        links: BTreeMap::new(),
    };
    let end = tokio::select! {
        biased;
        () = stop.stopped() => Ok(ExitCode::Done),
        end = agent.work(first, from_workers, &mut tasks) => end,
    };
    agent.children.kill_all();
    // The links of the ended workers close by themselves.
    drop(agent);
    tasks.stop(STOP_GRACE).await;
    end
}

fn identity(options: &AgentOptions) -> AgentIdentity {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.map_or_else(|_| "unknown".to_owned(), |host| host.trim().to_owned());
    AgentIdentity {
        agent: AgentId(format!("{host}:{}:{}", std::process::id(), uuid::Uuid::new_v4().simple())),
        host,
        slots: options.slots,
        on_loss: options.on_loss,
    }
}

/// Executes the outputs of the core.
struct Agent {
    options: AgentOptions,
    folder: SocketFolder,
    children: Children,
    line: Line,
    core: AgentCore,
    workers: BTreeMap<WorkerId, Running>,
    /// The channels for the orders of workers.
    links: BTreeMap<LinkId, mpsc::UnboundedSender<WorkerOrder>>,
}

impl Agent {
    async fn work(
        &mut self,
        first: Vec<AgentOutput>,
        mut from_workers: mpsc::Receiver<WorkerInput>,
        tasks: &mut TaskGroup,
    ) -> Result<ExitCode, AgentError> {
        let mut period = self.core.tick_period();
        let mut ticks = ticks(period);
        if let Some(end) = self.carry_out(first).await {
            return outcome(end);
        }
        loop {
            let full = self.line.full();
            let input = tokio::select! {
                biased;
                failure = tasks.next_failure() => return Err(failure.into()),
                input = self.line.next() => input,
                _ = ticks.tick() => self.look(),
                ended = self.children.next_end() => self.ended(ended),
                Some(input) = from_workers.recv(), if full.is_none() => match self.of_worker(input) {
                    Some(input) => input,
                    None => continue,
                },
                () = line::room(full.as_ref()) => continue,
            };
            let outputs = self.decide(input);
            if let Some(end) = self.carry_out(outputs).await {
                return outcome(end);
            }
            if self.core.tick_period() != period {
                period = self.core.tick_period();
                ticks = self::ticks(period);
                self.set_beat(period);
            }
        }
    }

    /// Passes an input to the core, and logs the loss and the return of the coordinator.
    fn decide(&mut self, input: AgentInput) -> Vec<AgentOutput> {
        let before = self.core.is_welcomed();
        let reason = match &input {
            AgentInput::Lost { reason } => reason.clone(),
            _ => "its lease has expired".to_owned(),
        };
        let outputs = self.core.handle(flight::now(), input);
        match (before, self.core.is_welcomed()) {
            (true, false) if self.options.on_loss == OnLoss::Reconnect => {
                let grace = self.core.terms().grace.as_secs_f64();
                tracing::warn!(
                    reason,
                    grace_seconds = grace,
                    "the coordinator is lost; the workers continue to train"
                );
            }
            (false, true) => tracing::info!("the agent belongs to the run"),
            _ => {}
        }
        outputs
    }

    async fn carry_out(&mut self, outputs: Vec<AgentOutput>) -> Option<AgentEnd> {
        let mut waiting = VecDeque::from(outputs);
        while let Some(output) = waiting.pop_front() {
            let followed = match output {
                AgentOutput::End(end) => return Some(end),
                AgentOutput::Call { after } => {
                    self.line.call(after);
                    None
                }
                AgentOutput::HangUp => {
                    self.line.hang_up();
                    None
                }
                AgentOutput::Send(message) => self.send(message),
                AgentOutput::SendWithLog { worker, mut message } => {
                    if let AgentReport::WorkerHung { log, .. } = &mut message.report {
                        *log = self.log_of(&worker);
                    }
                    self.send(message)
                }
                AgentOutput::Tell { link, order } => {
                    if let Some(orders) = self.links.get(&link) {
                        // The pidfd reports a worker that has ended.
                        let _ = orders.send(*order);
                    }
                    None
                }
                AgentOutput::Start { worker, index } => self.start(worker, index).await,
                AgentOutput::Kill { worker } => {
                    self.children.kill(&worker);
                    None
                }
            };
            waiting.extend(followed.into_iter().flat_map(|input| self.decide(input)));
        }
        None
    }

    fn send(&mut self, message: AgentMessage) -> Option<AgentInput> {
        let refused = self.line.send(message).err()?;
        self.line.hang_up();
        Some(AgentInput::Lost { reason: refused.to_owned() })
    }

    async fn start(&mut self, worker: WorkerId, index: u32) -> Option<AgentInput> {
        let place = Place {
            socket: self.folder.socket(),
            index,
            bind: self.line.local().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            flight: flight::path(&self.options.run_folder, index),
        };
        let log = self.options.run_folder.join(LOG_FOLDER).join(format!("worker-{index}.log"));
        let beat = self.core.tick_period();
        match self.children.start(&worker, &self.options.worker_command, &place, &log, beat).await {
            Ok(running) => {
                self.workers.insert(worker, running);
                None
            }
            Err(error) => Some(AgentInput::StartFailed { worker, message: error.to_string() }),
        }
    }

    fn of_worker(&mut self, input: WorkerInput) -> Option<AgentInput> {
        match input {
            WorkerInput::Joined { link, hello, orders } => {
                self.links.insert(link, orders);
                Some(AgentInput::WorkerJoined { link, hello })
            }
            WorkerInput::Message { link, mut message } => {
                if let WorkerMessage::Report { report: WorkerReport::Failed { log, .. }, .. } = &mut *message
                {
                    *log = self.log_of(self.core.worker_of(link)?);
                }
                Some(AgentInput::WorkerSaid { link, message: *message })
            }
            WorkerInput::Closed { link } => {
                self.links.remove(&link);
                Some(AgentInput::WorkerSilent { link })
            }
        }
    }

    fn ended(&mut self, (worker, cause): (WorkerId, ExitCause)) -> AgentInput {
        let last = self.workers.get_mut(&worker).and_then(|running| running.reading().current);
        let log = self.log_of(&worker);
        AgentInput::Ended { worker, cause, log, last }
    }

    fn look(&mut self) -> AgentInput {
        self.workers.retain(|id, _| self.core.holds(id));
        let readings = self.workers.iter_mut().map(|(id, running)| (id.clone(), running.reading())).collect();
        AgentInput::Tick { readings }
    }

    fn set_beat(&self, beat: Duration) {
        for running in self.workers.values() {
            running.set_beat(beat);
        }
    }

    fn log_of(&self, worker: &WorkerId) -> Vec<String> {
        self.workers.get(worker).map(Running::last_log_lines).unwrap_or_default()
    }
}

fn outcome(end: AgentEnd) -> Result<ExitCode, AgentError> {
    match end {
        AgentEnd::Over(exit) => Ok(exit),
        AgentEnd::Refused(reason) => Err(AgentError::Refused(reason)),
        AgentEnd::Lost(reason) => Err(AgentError::Lost(reason)),
        AgentEnd::GraceOver { grace, reason } => Err(AgentError::GraceOver { grace, reason }),
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
