//! One a node: starts workers, watches them, keeps their logs, and holds the node's lease with the coordinator.
//!
//! ```text
//!  coordinator <--tonic, TCP--> agent <--tonic, Unix socket--> worker
//!                                 |  pidfd, log file, stamp file  |
//!                                 +-------------------------------+
//! ```
//!
//! A worker never outlives its agent: the kernel kills it when the agent's process ends, the agent kills it when the agent
//! itself ends in any other way, panics included.

mod children;
mod log;
mod socket;
mod worker_link;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use longtake_shared::hint::Hint;
use longtake_shared::ids::{RunId, WorkerId};
use longtake_shared::protocol::{
    CONNECTION_WINDOW_BYTES, ExitCause, MAX_MESSAGE_BYTES, PROTOCOL_VERSION, STREAM_WINDOW_BYTES, wire,
};
use longtake_shared::task::{StopToken, TaskFailure, TaskGroup, TaskKind};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Request, Status, Streaming};
use wire::agent_message::Body as AgentBody;
use wire::agent_order::Body as OrderBody;
use wire::agent_service_client::AgentServiceClient;

use crate::launch::local::LocalLauncher;
use crate::run::membership::AgentId;
use crate::server::TOKEN_FIELD;
use children::{Children, Running};
use socket::SocketFolder;
use worker_link::WorkerInput;

/// How long the last words of a dead worker are waited for before its death is told.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Messages that wait for the coordinator.
const QUEUE: usize = 1024;

/// Messages of workers that wait for the agent's loop.
const WORKER_QUEUE: usize = 256;

/// Renewals in a lease.
const RENEWALS_PER_LEASE: u32 = 5;

/// Until the coordinator has told the lease.
const FIRST_LEASE: Duration = Duration::from_secs(1);

/// How long the tasks of an ending agent are waited for.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What an agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOptions {
    /// The run it belongs to.
    pub run: RunId,
    /// Where the coordinator listens.
    pub coordinator: SocketAddr,
    /// What the coordinator wants to be shown.
    pub token: String,
    /// Workers it can start.
    pub slots: usize,
    /// How it starts them.
    pub launcher: LocalLauncher,
    /// Where their logs go.
    pub log_folder: PathBuf,
}

/// What ends an agent early.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A socket, folder, thread or file it needs cannot be made.
    #[error("the agent cannot {verb}")]
    Io {
        /// What it tried.
        verb: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The coordinator is not where it should be.
    #[error("the agent cannot reach the coordinator at {address}")]
    Unreachable {
        /// Where it should be.
        address: SocketAddr,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The coordinator refuses it.
    #[error("the coordinator refuses the agent: {}", .0.message())]
    Refused(Box<Status>),
    /// The coordinator has gone without a goodbye.
    #[error("the agent has lost the coordinator: {0}")]
    Lost(String),
    /// One of its tasks has failed.
    #[error(transparent)]
    Task(#[from] TaskFailure),
}

impl Hint for AgentError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { .. } | Self::Refused(_) | Self::Lost(_) | Self::Task(_) => None,
            Self::Unreachable { .. } => {
                Some("see whether the coordinator runs, and whether this machine can reach it".to_owned())
            }
        }
    }
}

/// Runs an agent until the coordinator says goodbye, or until it is told to stop. No worker is left when it returns.
///
/// # Errors
/// The coordinator cannot be reached or is lost, or what the agent needs cannot be made.
pub async fn run(options: AgentOptions, mut stop: StopToken) -> Result<(), AgentError> {
    let folder = SocketFolder::make().map_err(|source| AgentError::Io { verb: "make its socket", source })?;
    std::fs::create_dir_all(&options.log_folder)
        .map_err(|source| AgentError::Io { verb: "make the folder of its workers' logs", source })?;
    let children = Children::new()
        .map_err(|source| AgentError::Io { verb: "start the thread that starts workers", source })?;
    let (inputs, from_workers) = mpsc::channel(WORKER_QUEUE);
    let mut tasks = TaskGroup::default();
    let listener =
        folder.listen().map_err(|source| AgentError::Io { verb: "listen on its socket", source })?;
    tasks.spawn(TaskKind::WorkerServer, worker_link::serve(listener, inputs, tasks.stop_token()));

    let (outgoing, queue) = mpsc::channel(QUEUE);
    let hello = AgentBody::Hello(hello(&options));
    // The queue is empty, and its receiver lives.
    let _ = outgoing.try_send(wire::AgentMessage { incarnation: 0, body: Some(hello) });
    let orders = link(&options, queue).await?;
    let mut agent = Agent {
        options,
        folder,
        children,
        outbox: Outbox { queue: outgoing, incarnation: 0 },
        lease: FIRST_LEASE,
        workers: BTreeMap::new(),
    };
    let end = tokio::select! {
        biased;
        () = stop.stopped() => Ok(()),
        end = agent.work(orders, from_workers, &mut tasks) => end,
    };
    agent.children.kill_all();
    // The links of the dead workers end by themselves.
    drop(agent);
    tasks.stop(STOP_GRACE).await;
    end
}

fn hello(options: &AgentOptions) -> wire::AgentHello {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.map_or_else(|_| "unknown".to_owned(), |host| host.trim().to_owned());
    wire::AgentHello {
        protocol: PROTOCOL_VERSION,
        run: options.run.0.clone(),
        agent: AgentId(format!("{host}:{}:{}", std::process::id(), uuid::Uuid::new_v4().simple())).0,
        host,
        slots: options.slots as u32,
        workers: Vec::new(),
        exited: Vec::new(),
    }
}

async fn link(
    options: &AgentOptions,
    queue: mpsc::Receiver<wire::AgentMessage>,
) -> Result<Streaming<wire::AgentOrder>, AgentError> {
    let unreachable = |source| AgentError::Unreachable { address: options.coordinator, source };
    let endpoint = Endpoint::from_shared(format!("http://{}", options.coordinator)).map_err(unreachable)?;
    let channel = endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect()
        .await
        .map_err(unreachable)?;
    let mut request = Request::new(ReceiverStream::new(queue));
    if let Ok(token) = MetadataValue::try_from(options.token.as_str()) {
        request.metadata_mut().insert(TOKEN_FIELD, token);
    }
    let answer = AgentServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
        .link(request)
        .await;
    answer.map(tonic::Response::into_inner).map_err(|status| AgentError::Refused(Box::new(status)))
}

/// A worker as its agent knows it.
struct Worker {
    index: u32,
    running: Running,
    /// Where its orders go; absent before it connects, and after its link is over.
    orders: Option<mpsc::UnboundedSender<wire::WorkerOrder>>,
    /// How its process ended, and until when its last words are waited for.
    ended: Option<(ExitCause, Instant)>,
}

/// The way to the coordinator.
struct Outbox {
    queue: mpsc::Sender<wire::AgentMessage>,
    incarnation: u64,
}

impl Outbox {
    /// A link that is over takes nothing; the stream of orders tells whether that is the end of the run or a loss.
    async fn send(&self, body: AgentBody) {
        let message = wire::AgentMessage { incarnation: self.incarnation, body: Some(body) };
        if self.queue.send(message).await.is_err() {
            tracing::debug!("a message to the coordinator came after the end of the link");
        }
    }

    async fn forward(&self, worker: WorkerId, message: wire::WorkerMessage) {
        let from = wire::FromWorker { worker: worker.0, message: Some(message) };
        self.send(AgentBody::FromWorker(from)).await;
    }
}

struct Agent {
    options: AgentOptions,
    folder: SocketFolder,
    children: Children,
    outbox: Outbox,
    lease: Duration,
    /// Those whose end was not told yet.
    workers: BTreeMap<WorkerId, Worker>,
}

impl Agent {
    async fn work(
        &mut self,
        mut orders: Streaming<wire::AgentOrder>,
        mut from_workers: mpsc::Receiver<WorkerInput>,
        tasks: &mut TaskGroup,
    ) -> Result<(), AgentError> {
        let mut renewals = renewals(self.lease);
        loop {
            tokio::select! {
                biased;
                failure = tasks.next_failure() => return Err(failure.into()),
                order = orders.message() => match order {
                    Ok(Some(order)) => {
                        self.outbox.incarnation = order.incarnation;
                        match order.body {
                            Some(OrderBody::Goodbye(_)) => return Ok(()),
                            Some(OrderBody::Welcome(welcome)) => {
                                let lease = Duration::try_from_secs_f64(welcome.lease_seconds);
                                self.lease = lease.ok().filter(|lease| !lease.is_zero()).unwrap_or(FIRST_LEASE);
                                renewals = self::renewals(self.lease);
                            }
                            Some(body) => self.obey(body).await,
                            None => tracing::warn!("the coordinator has sent an order without a body"),
                        }
                    }
                    Ok(None) => return Err(AgentError::Lost("it closed the link".to_owned())),
                    Err(status) => return Err(AgentError::Lost(status.message().to_owned())),
                },
                _ = renewals.tick() => self.renew().await,
                ended = self.children.next_end() => self.ended(ended).await,
                Some(input) = from_workers.recv() => self.take(input).await,
            }
        }
    }

    async fn obey(&mut self, order: OrderBody) {
        match order {
            OrderBody::StartWorker(start) => self.start(start).await,
            OrderBody::ToWorker(to) => {
                let worker = self.workers.get(&WorkerId(to.worker)).and_then(|worker| worker.orders.as_ref());
                if let (Some(orders), Some(order)) = (worker, to.order) {
                    // A worker that is gone is told of by its pidfd.
                    let _ = orders.send(order);
                }
            }
            OrderBody::KillWorkers(_) => {
                self.children.kill_all();
            }
            OrderBody::KillWorker(_) | OrderBody::Welcome(_) | OrderBody::Goodbye(_) => {}
        }
    }

    async fn start(&mut self, start: wire::StartWorker) {
        let id = WorkerId(start.worker);
        let log = self.options.log_folder.join(format!("worker-{}.log", start.index));
        match self.children.start(&id, start.index, &self.options.launcher, &self.folder.socket(), &log).await
        {
            Ok(running) => {
                let worker = Worker { index: start.index, running, orders: None, ended: None };
                self.workers.insert(id, worker);
            }
            Err(error) => {
                let failed = wire::StartFailed { worker: id.0, message: error.to_string() };
                self.outbox.send(AgentBody::StartFailed(failed)).await;
            }
        }
    }

    async fn take(&mut self, input: WorkerInput) {
        match input {
            WorkerInput::Joined { index, hello, orders } => {
                let Some((id, worker)) = self
                    .workers
                    .iter_mut()
                    .find(|(_, worker)| worker.index == index && worker.orders.is_none())
                else {
                    tracing::warn!(index, "a process that was not started here says it is a worker");
                    return;
                };
                worker.orders = Some(orders);
                let id = id.clone();
                self.outbox.forward(id, *hello).await;
            }
            WorkerInput::Message { index, mut message } => {
                let Some((id, worker)) = self.workers.iter().find(|(_, worker)| worker.index == index) else {
                    return;
                };
                if let Some(wire::worker_message::Body::Failed(failed)) = &mut message.body {
                    failed.log = worker.running.last_log_lines();
                    let noted = wire::worker_order::Body::Noted(wire::Noted {});
                    let noted = wire::WorkerOrder { identity: message.identity.clone(), body: Some(noted) };
                    if let Some(orders) = &worker.orders {
                        let _ = orders.send(noted);
                    }
                }
                let id = id.clone();
                self.outbox.forward(id, *message).await;
            }
            WorkerInput::Closed { index } => {
                let Some((id, worker)) = self.workers.iter_mut().find(|(_, worker)| worker.index == index)
                else {
                    return;
                };
                worker.orders = None;
                let id = id.clone();
                self.tell_end(&id, false).await;
            }
        }
    }

    async fn ended(&mut self, (id, cause): (WorkerId, ExitCause)) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.ended = Some((cause, Instant::now() + LAST_WORDS));
        }
        self.tell_end(&id, false).await;
    }

    /// Tells a death once everything the worker had said was told: when its link is over, or after a while.
    async fn tell_end(&mut self, id: &WorkerId, late: bool) {
        let Some(worker) = self.workers.get(id) else { return };
        let Some((cause, _)) = worker.ended else { return };
        if worker.orders.is_some() && !late {
            return;
        }
        let cause = match cause {
            ExitCause::Code(code) => wire::worker_exited::Cause::Code(code),
            ExitCause::Signal(signal) => wire::worker_exited::Cause::Signal(signal),
        };
        let exited = wire::WorkerExited {
            worker: id.0.clone(),
            cause: Some(cause),
            log: worker.running.last_log_lines(),
            last: None,
        };
        self.workers.remove(id);
        self.outbox.send(AgentBody::WorkerExited(exited)).await;
    }

    async fn renew(&mut self) {
        let now = Instant::now();
        let late: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.ended.is_some_and(|(_, deadline)| now >= deadline))
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            self.tell_end(&id, true).await;
        }
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamps = self
            .workers
            .iter()
            .filter_map(|(id, worker)| {
                let stamp = worker.running.stamp()?;
                Some(wire::Stamp {
                    worker: id.0.clone(),
                    step: stamp.step.0,
                    phase: stamp.phase.name().to_owned(),
                    seconds: clock.saturating_sub(stamp.since).as_secs_f64(),
                })
            })
            .collect();
        self.outbox.send(AgentBody::Renewal(wire::Renewal { stamps })).await;
    }
}

fn renewals(lease: Duration) -> tokio::time::Interval {
    let mut renewals = tokio::time::interval(lease / RENEWALS_PER_LEASE);
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    renewals
}
