//! An agent and its workers, between them and a coordinator that a test plays.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::stream::{Stream, StreamExt as _};
use longtake_coordinator::agent::AgentOptions;
use longtake_coordinator::agent::core::OnLoss;
use longtake_coordinator::agent::worker_command::WorkerCommand;
use longtake_coordinator::join_as_agent;
use longtake_coordinator::server::address::{CoordinatorAddress, FolderLock, Whereabouts};
use longtake_coordinator::signals::Signals;
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::ids::{Incarnation, RunId, Step};
use longtake_shared::protocol::flight::{self, FlightLog};
use longtake_shared::protocol::stamp::StepPhase;
use longtake_shared::protocol::wire;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use wire::agent_message::Body as AgentBody;
use wire::agent_order::Body as OrderBody;
use wire::agent_service_server::{AgentService, AgentServiceServer};
use wire::worker_exited::Cause;
use wire::worker_message::Body as WorkerBody;

use crate::support::DEADLINE;
use crate::{fake_worker, in_runtime, wait_until_gone, watch};

/// A coordinator whose part a test plays. Dropping it is its death: nothing is said to anybody, and connections break as
/// they do when a process is killed.
struct Coordinator {
    calls: mpsc::UnboundedReceiver<Call>,
    /// Of its own, so that no task of a connection outlives it.
    runtime: Option<Runtime>,
    _lock: FolderLock,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The link of an agent, from the coordinator's side.
struct Call {
    hello: wire::AgentHello,
    messages: mpsc::UnboundedReceiver<AgentBody>,
    orders: mpsc::UnboundedSender<Result<wire::AgentOrder, Status>>,
    /// Whether renewals are answered.
    answers: Arc<AtomicBool>,
}

struct Service(mpsc::UnboundedSender<Call>);

#[tonic::async_trait]
impl AgentService for Service {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<wire::AgentOrder, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|message| message.body);
        let Some(AgentBody::Hello(hello)) = first else { return Err(Status::invalid_argument("no hello")) };
        let (orders, stream) = mpsc::unbounded_channel();
        let (sender, messages) = mpsc::unbounded_channel();
        let answers = Arc::new(AtomicBool::new(true));
        let call = Call { hello, messages, orders: orders.clone(), answers: Arc::clone(&answers) };
        self.0.send(call).map_err(|_| Status::unavailable("the test is over"))?;
        let reading = async move {
            while let Ok(Some(message)) = incoming.message().await {
                let Some(body) = message.body else { continue };
                if matches!(body, AgentBody::Renewal(_)) && answers.load(Ordering::Acquire) {
                    let body = Some(OrderBody::Renewed(wire::Renewed {}));
                    let _ = orders.send(Ok(wire::AgentOrder { incarnation: 0, body }));
                }
                let _ = sender.send(body);
            }
        };
        // It is read while it is answered, and dies with the server.
        let reading = futures::stream::once(reading).filter_map(|()| async { None });
        let both = futures::stream::select(UnboundedReceiverStream::new(stream), reading);
        Ok(Response::new(Box::pin(both)))
    }
}

impl Coordinator {
    fn start(run_folder: &Path, incarnation: u64) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let (sender, calls) = mpsc::unbounded_channel();
        let service = AgentServiceServer::new(Service(sender));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await
        });
        let lock = FolderLock::take(run_folder).unwrap();
        let run = RunId("fake".into());
        let incarnation = Incarnation(incarnation);
        let (pid, token) = (std::process::id(), "token".to_owned());
        lock.publish(&CoordinatorAddress { run, incarnation, address, pid, token }).unwrap();
        Self { calls, runtime: Some(runtime), _lock: lock }
    }

    async fn call(&mut self) -> Call {
        in_time(self.calls.recv()).await.unwrap()
    }
}

impl Call {
    fn order(&self, incarnation: u64, body: OrderBody) {
        self.orders.send(Ok(wire::AgentOrder { incarnation, body: Some(body) })).unwrap();
    }

    fn welcome(&self, incarnation: u64, lease: f64, grace: f64, phase_deadline: f64) {
        let welcome = wire::Welcome {
            lease_seconds: lease,
            coordinator_grace_seconds: grace,
            phase_deadline_seconds: phase_deadline,
        };
        self.order(incarnation, OrderBody::Welcome(welcome));
    }

    /// Starts worker `w<index>.0` and waits until it has said hello; gives its process.
    async fn start(&mut self, incarnation: u64, index: u32) -> u32 {
        let worker = format!("w{index}.0");
        self.order(incarnation, OrderBody::StartWorker(wire::StartWorker { worker: worker.clone(), index }));
        self.until(|body| match body {
            AgentBody::FromWorker(from) if from.worker == worker => match from.message?.body? {
                WorkerBody::Hello(hello) => Some(hello.pid),
                _ => None,
            },
            _ => None,
        })
        .await
    }

    async fn until<T>(&mut self, mut wanted: impl FnMut(AgentBody) -> Option<T>) -> T {
        in_time(async {
            loop {
                let body = self.messages.recv().await.expect("the link holds");
                if let Some(found) = wanted(body) {
                    return found;
                }
            }
        })
        .await
    }

    async fn hang(&mut self) -> wire::WorkerHung {
        self.until(|body| match body {
            AgentBody::WorkerHung(hung) => Some(hung),
            _ => None,
        })
        .await
    }

    async fn end_of(&mut self, worker: &str) -> wire::WorkerExited {
        self.until(|body| match body {
            AgentBody::WorkerExited(exited) if exited.worker == worker => Some(exited),
            _ => None,
        })
        .await
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("it comes in time")
}

/// An agent whose workers behave like that.
fn join(run_folder: &Path, behaviour: &str) -> JoinHandle<Result<ExitCode, Failure>> {
    let command = vec![fake_worker().into(), behaviour.into()];
    let options = AgentOptions {
        coordinator: Whereabouts::Folder(run_folder.to_owned()),
        on_loss: OnLoss::Reconnect,
        slots: 2,
        worker_command: WorkerCommand { program: command, threads: 1, workers: 2 },
        run_folder: run_folder.to_owned(),
    };
    tokio::spawn(async move {
        // The sender lives as long as the agent.
        let (_signals, source) = Signals::channel();
        join_as_agent(options, source).await
    })
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

#[test]
fn an_agent_keeps_its_workers_until_the_coordinator_is_back() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Coordinator::start(folder.path(), 1);
        let agent = join(folder.path(), "stuck");
        let mut call = first.call().await;
        assert_eq!((call.hello.run.as_str(), call.hello.slots), ("fake", 2));
        assert!(call.hello.workers.is_empty());
        call.welcome(1, 10.0, 60.0, 60.0);
        let pids = [call.start(1, 0).await, call.start(1, 1).await];
        let id = call.hello.agent.clone();
        drop(call);
        drop(first);
        let dead = watch(&pids[1..]);
        signal(pids[1], Signal::KILL);
        wait_until_gone(&dead);

        let mut second = Coordinator::start(folder.path(), 2);
        let back = Instant::now();
        let mut call = second.call().await;
        // The bound is for a loaded machine; the figure itself is in the test's output.
        eprintln!("a coordinator that is back is found after {:.0} ms", back.elapsed().as_secs_f64() * 1e3);
        assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
        assert_eq!(call.hello.agent, id);
        let held = call.hello.workers.iter().find(|held| held.worker == "w0.0").unwrap();
        assert_eq!((held.index, held.hello.as_ref().unwrap().pid), (0, pids[0]));
        call.welcome(2, 10.0, 60.0, 60.0);
        let told = call.hello.exited.first().cloned();
        let ended = match told {
            Some(ended) => ended,
            // The agent had not seen it yet when it said hello.
            None => call.end_of("w1.0").await,
        };
        assert_eq!((ended.worker.as_str(), ended.cause), ("w1.0", Some(Cause::Signal(9))));

        // An order of the dead coordinator would be obeyed by nobody; one of the new one reaches the worker.
        call.order(1, OrderBody::KillWorkers(wire::KillWorkers {}));
        let shutdown = wire::worker_order::Body::Shutdown(wire::Shutdown {});
        let order = Some(wire::WorkerOrder { identity: None, body: Some(shutdown) });
        call.order(2, OrderBody::ToWorker(wire::ToWorker { worker: "w0.0".into(), order }));
        assert_eq!(call.end_of("w0.0").await.cause, Some(Cause::Code(2)));
        call.order(2, OrderBody::Goodbye(wire::Goodbye { exit_code: 78 }));
        assert_eq!(in_time(agent).await.unwrap().unwrap(), ExitCode::NeverRestart);
    });
}

#[test]
fn an_agent_whose_coordinator_stays_away_kills_its_workers_and_says_so() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut coordinator = Coordinator::start(folder.path(), 1);
        let agent = join(folder.path(), "stuck");
        let mut call = coordinator.call().await;
        call.welcome(1, 10.0, 0.3, 60.0);
        let workers = watch(&[call.start(1, 0).await]);
        drop(call);
        drop(coordinator);
        let failure = in_time(agent).await.unwrap().unwrap_err();
        assert!(
            failure.message.starts_with("the agent has been without a coordinator for 0 s: no coordinator"),
            "{}",
            failure.message
        );
        assert!(failure.hint.unwrap().contains("longtake coordinator --resume"));
        wait_until_gone(&workers);
    });
}

#[test]
fn a_worker_that_is_stopped_is_told_and_killed_on_request() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut coordinator = Coordinator::start(folder.path(), 1);
        let agent = join(folder.path(), "stuck");
        let mut call = coordinator.call().await;
        call.welcome(1, 2.0, 60.0, 60.0);
        let pids = [call.start(1, 0).await, call.start(1, 1).await];
        signal(pids[1], Signal::STOP);
        let stopped = Instant::now();
        let hung = call.hang().await;
        eprintln!("a stopped worker is told after {:.1} s, lease 2 s", stopped.elapsed().as_secs_f64());
        assert_eq!((hung.worker.as_str(), hung.deadline_seconds), ("w1.0", 2.0));
        call.order(1, OrderBody::KillWorker(wire::KillWorker { worker: "w1.0".into() }));
        assert_eq!(call.end_of("w1.0").await.cause, Some(Cause::Signal(9)));
        call.order(1, OrderBody::KillWorker(wire::KillWorker { worker: "w0.0".into() }));
        assert_eq!(call.end_of("w0.0").await.cause, Some(Cause::Signal(9)));
        call.order(1, OrderBody::Goodbye(wire::Goodbye { exit_code: 1 }));
        assert_eq!(in_time(agent).await.unwrap().unwrap(), ExitCode::Failed);
    });
}

#[test]
fn a_worker_that_makes_no_progress_is_told_and_its_recorder_outlives_it() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut coordinator = Coordinator::start(folder.path(), 1);
        let agent = join(folder.path(), "hang");
        let mut call = coordinator.call().await;
        call.welcome(1, 5.0, 60.0, 0.2);
        let pid = call.start(1, 0).await;
        let hung = call.hang().await;
        let doing = hung.doing.unwrap();
        assert_eq!((doing.step, doing.phase.as_str(), hung.deadline_seconds), (3, "look", 0.2));
        assert_eq!(hung.log, ["the disk does not answer"]);
        call.order(1, OrderBody::KillWorker(wire::KillWorker { worker: "w0.0".into() }));
        let last = call.end_of("w0.0").await.last.unwrap();
        assert_eq!((last.step, last.phase.as_str()), (3, "look"));

        let flight = FlightLog::open(&flight::path(folder.path(), 0)).unwrap().read().unwrap();
        let newest = flight.records.last().unwrap();
        assert_eq!((newest.step, newest.phase, newest.took), (Step(3), StepPhase::Look, None));
        assert_eq!((flight.pid, flight.torn), (Some(pid), 0));
        call.order(1, OrderBody::Goodbye(wire::Goodbye { exit_code: 0 }));
        assert_eq!(in_time(agent).await.unwrap().unwrap(), ExitCode::Done);
    });
}

#[test]
fn an_agent_that_is_not_answered_is_fenced_and_calls_again() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut coordinator = Coordinator::start(folder.path(), 1);
        let agent = join(folder.path(), "stuck");
        let mut fenced = coordinator.call().await;
        fenced.welcome(1, 2.0, 60.0, 60.0);
        let pid = fenced.start(1, 0).await;
        fenced.answers.store(false, Ordering::Release);
        let mut call = coordinator.call().await;
        assert_eq!(call.hello.agent, fenced.hello.agent);
        assert_eq!(call.hello.workers[0].hello.as_ref().unwrap().pid, pid);
        // The old link is closed: nothing that is said there is heard.
        in_time(async { while fenced.messages.recv().await.is_some() {} }).await;
        call.welcome(1, 10.0, 60.0, 60.0);
        call.start(1, 1).await;
        call.order(1, OrderBody::Goodbye(wire::Goodbye { exit_code: 0 }));
        assert_eq!(in_time(agent).await.unwrap().unwrap(), ExitCode::Done);
    });
}
