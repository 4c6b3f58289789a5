//! The processes of an agent's workers: started by one thread, watched by pidfd, killed with the agent.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use longtake_shared::ids::WorkerId;
use longtake_shared::protocol::ExitCause;
use longtake_shared::protocol::flight::FlightLog;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::core::Reading;
use super::log::WorkerLog;
use super::worker_command::{Place, WorkerCommand};

/// All worker processes of an agent. Dropping it kills them.
pub(super) struct Children {
    /// Dropped first: the thread that started the processes must end after them.
    processes: BTreeMap<WorkerId, Arc<Process>>,
    ends: FuturesUnordered<BoxFuture<'static, (WorkerId, ExitCause)>>,
    spawner: Spawner,
}

/// Log and flight recorder of one worker.
pub(super) struct Running {
    log: WorkerLog,
    flight: FlightLog,
    /// Sequence number of the newest record at the last reading, whose phase had not ended.
    seen: u64,
}

impl Running {
    /// The last lines of its log.
    pub(super) fn last_log_lines(&self) -> Vec<String> {
        self.log.last_lines()
    }

    /// Its flight recorder since the last reading; empty if the file cannot be read.
    pub(super) fn reading(&mut self) -> Reading {
        let flight = match self.flight.read_from(self.seen) {
            Ok(flight) => flight,
            Err(error) => {
                tracing::debug!(%error, "a flight recorder cannot be read");
                return Reading::default();
            }
        };
        self.seen = flight.records.last().map_or(self.seen, |newest| newest.sequence);
        Reading::from(&flight)
    }

    /// Changes the time between two signs of life.
    pub(super) fn set_beat(&self, beat: Duration) {
        if let Err(error) = self.flight.set_beat(beat) {
            tracing::warn!(%error, "a flight recorder cannot be written");
        }
    }
}

impl Children {
    /// No processes yet.
    ///
    /// # Errors
    /// The starting thread cannot be created.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { processes: BTreeMap::new(), ends: FuturesUnordered::new(), spawner: Spawner::start()? })
    }

    /// Starts a worker that gives a sign of life every `beat`.
    ///
    /// # Errors
    /// Its program, log or flight recorder cannot be opened.
    pub(super) async fn start(
        &mut self,
        id: &WorkerId,
        worker_command: &WorkerCommand,
        place: &Place,
        log: &Path,
        beat: Duration,
    ) -> io::Result<Running> {
        let log = WorkerLog::open(log)?;
        let flight = FlightLog::create(&place.flight, beat).map_err(|error| {
            let path = place.flight.display();
            io::Error::new(error.kind(), format!("cannot create the flight recorder `{path}`: {error}"))
        })?;
        let command = worker_command.command(place, &log.file)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child =
            self.spawner.spawn(command).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot start `{program}`: {error}"))
            })?;
        let process = Arc::new(Process::new(child)?);
        #[expect(
            deprecated,
            reason = "sound here: nothing but the AsyncFd holds this pidfd; `register` is unsafe"
        )]
        let pidfd = AsyncFd::new(process.pidfd()?)?;
        self.processes.insert(id.clone(), Arc::clone(&process));
        let id = id.clone();
        self.ends.push(Box::pin(async move {
            // A pidfd becomes readable when its process ends (pidfd_open(2)).
            let readable = pidfd.readable().await.map(drop);
            let cause = readable.and_then(|()| process.reap()).unwrap_or_else(|error| {
                tracing::error!(worker = %id, %error, "the end of a worker cannot be observed");
                process.kill();
                ExitCause::Signal(Signal::KILL.as_raw())
            });
            (id, cause)
        }));
        Ok(Running { log, flight, seen: 1 })
    }

    /// The next worker whose process ends; pending while none does. Cancel-safe.
    pub(super) async fn next_end(&mut self) -> (WorkerId, ExitCause) {
        match self.ends.next().await {
            Some(end) => {
                self.processes.remove(&end.0);
                end
            }
            None => std::future::pending().await,
        }
    }

    /// Kills a worker and its child processes, if it still runs.
    pub(super) fn kill(&self, worker: &WorkerId) {
        if let Some(process) = self.processes.get(worker) {
            process.kill();
        }
    }

    /// Kills all running workers and their child processes.
    pub(super) fn kill_all(&self) {
        for process in self.processes.values() {
            process.kill();
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.kill_all();
        for process in self.processes.values() {
            // After SIGKILL this returns at once. Without it, the process would remain a zombie until this one ends.
            if let Err(error) = process.reap() {
                tracing::warn!(%error, "a killed worker cannot be reaped");
            }
        }
    }
}

/// A worker's process, the leader of its own process group.
struct Process {
    pid: Pid,
    child: Mutex<Option<Child>>,
}

impl Process {
    fn new(child: Child) -> io::Result<Self> {
        let pid = Pid::from_raw(child.id().cast_signed())
            .ok_or_else(|| io::Error::other("a process without an id"))?;
        Ok(Self { pid, child: Mutex::new(Some(child)) })
    }

    fn pidfd(&self) -> io::Result<OwnedFd> {
        Ok(pidfd_open(self.pid, PidfdFlags::NONBLOCK)?)
    }

    /// Kills its group. Its id cannot be reused before the process is reaped.
    fn kill(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if child.is_some() {
            // The process may have ended meanwhile.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Reaps the process and kills its children. Called once the process has ended or was killed.
    fn reap(&self) -> io::Result<ExitCause> {
        self.kill();
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        match child.take() {
            Some(mut child) => child.wait().map(exit_cause),
            None => Ok(ExitCause::Code(0)),
        }
    }
}

fn exit_cause(status: ExitStatus) -> ExitCause {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCause::Code(code),
        (None, signal) => ExitCause::Signal(signal.unwrap_or_default()),
    }
}

/// A thread that only starts processes. The kernel kills a worker when the *thread* that started it ends (prctl(2),
/// PR_SET_PDEATHSIG), and threads of an async runtime may end at any time.
struct Spawner {
    /// Absent once the thread must end.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

struct Request {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

impl Spawner {
    fn start() -> io::Result<Self> {
        let (requests, queue) = mpsc::channel::<Request>();
        let thread = std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            for Request { mut command, reply } in queue {
                // The caller may have ended; its death signal then kills the child when this thread ends.
                let _ = reply.send(command.spawn());
            }
        })?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    async fn spawn(&self, command: Command) -> io::Result<Child> {
        let gone = || io::Error::other("the thread that starts workers has ended");
        let (reply, child) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(Request { command, reply }).map_err(|_| gone())?;
        child.await.map_err(|_| gone())?
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It cannot panic: it only starts processes.
            let _ = thread.join();
        }
    }
}
