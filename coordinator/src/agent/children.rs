//! The processes of an agent's workers: started by a thread that lives as long as they may, watched by pidfd, killed with it.

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
use crate::launch::local::{LocalLauncher, Place};

/// All worker processes of an agent. Dropping it kills them.
pub(super) struct Children {
    /// Dropped first: the thread that started them must not end before they have.
    processes: BTreeMap<WorkerId, Arc<Process>>,
    ends: FuturesUnordered<BoxFuture<'static, (WorkerId, ExitCause)>>,
    spawner: Spawner,
}

/// One worker's log and flight recorder, as the agent's loop holds them.
pub(super) struct Running {
    log: WorkerLog,
    flight: FlightLog,
    /// The newest record at the last reading, which had not ended.
    seen: u64,
}

impl Running {
    /// The last lines of its log.
    pub(super) fn last_log_lines(&self) -> Vec<String> {
        self.log.last_lines()
    }

    /// What its recorder shows since the last reading; nothing where the file cannot be read any more.
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

    /// Changes how often it is to give a sign of life.
    pub(super) fn set_beat(&self, beat: Duration) {
        if let Err(error) = self.flight.set_beat(beat) {
            tracing::warn!(%error, "a flight recorder cannot be written");
        }
    }
}

impl Children {
    /// Nobody yet.
    ///
    /// # Errors
    /// The starting thread cannot be made.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { processes: BTreeMap::new(), ends: FuturesUnordered::new(), spawner: Spawner::start()? })
    }

    /// Starts a worker, which is to give a sign of life each `beat`.
    ///
    /// # Errors
    /// Its program, log or flight recorder cannot be opened.
    pub(super) async fn start(
        &mut self,
        id: &WorkerId,
        launcher: &LocalLauncher,
        place: &Place,
        log: &Path,
        beat: Duration,
    ) -> io::Result<Running> {
        let log = WorkerLog::open(log)?;
        let flight = FlightLog::create(&place.flight, beat).map_err(|error| {
            let path = place.flight.display();
            io::Error::new(error.kind(), format!("cannot make the flight recorder `{path}`: {error}"))
        })?;
        let command = launcher.command(place, &log.file)?;
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
            // A pidfd is readable when its process is over (pidfd_open(2)).
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

    /// The next worker whose process is over. May be dropped and called again; never returns while there is none.
    pub(super) async fn next_end(&mut self) -> (WorkerId, ExitCause) {
        match self.ends.next().await {
            Some(end) => {
                self.processes.remove(&end.0);
                end
            }
            None => std::future::pending().await,
        }
    }

    /// Kills a worker if it still runs, and what it has started.
    pub(super) fn kill(&self, worker: &WorkerId) {
        if let Some(process) = self.processes.get(worker) {
            process.kill();
        }
    }

    /// Kills all that still run, and what they have started.
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
            // After SIGKILL this returns at once; without it, the process would stay as a zombie until this one ends.
            if let Err(error) = process.reap() {
                tracing::warn!(%error, "a killed worker cannot be reaped");
            }
        }
    }
}

/// A worker's process, which is also the leader of its own process group.
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

    /// Kills its group. While the process is not reaped, its id cannot be another's.
    fn kill(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if child.is_some() {
            // It may have ended by itself in the meantime.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Takes its end, once. Whoever calls this has seen its end or killed it; what it has started ends with it.
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

/// A thread that starts processes and does nothing else. Workers ask the kernel to be killed when the *thread* that started
/// them ends (prctl(2), PR_SET_PDEATHSIG); threads of an async runtime come and go.
struct Spawner {
    /// Gone when the thread is to end.
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
                // Whoever asked may have gone; then the child is killed by its death signal when this thread ends.
                let _ = reply.send(command.spawn());
            }
        })?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    async fn spawn(&self, command: Command) -> io::Result<Child> {
        let gone = || io::Error::other("the thread that starts workers is gone");
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
