//! The training thread's side of the link to the agent: what it may say, and what it is told.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use longtake_shared::ids::{Generation, Step};
use longtake_shared::protocol::flight::Recorder;
#[cfg(test)]
use longtake_shared::protocol::flight::{self, FlightLog};
use longtake_shared::protocol::stamp::StepPhase;
use longtake_shared::protocol::{
    Detection, Directive, Ending, FailureScope, Flags, Kept, Progress, SavedParts, Stage, wire,
};
use tokio::sync::mpsc;

use super::inbox::{Inbox, OnAbort, Shared};
use super::{ControlError, convert, link};

/// Messages that wait for the connection before the training thread waits for them.
const QUEUE: usize = 256;

/// Steps whose progress may wait: some 8 MB, which no agent that lives lets come together.
const PROGRESS_QUEUE: usize = 16_384;

/// How long a failing or ending worker waits for its last words to be heard.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Which worker of its agent, from 0.
    pub index: u32,
    /// Its process.
    pub pid: u32,
    /// Where its collective listens.
    pub ring_address: SocketAddr,
}

/// A worker's link to its agent. Everything but [`Session::connect`] may be called from any thread outside tokio.
///
/// Dropping it says the last words and closes the connection.
pub struct Session {
    shared: Arc<Shared>,
    /// Gone once the session is closing.
    outgoing: Option<mpsc::Sender<wire::WorkerMessage>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Connects to the agent and says hello; `flight` is the ring that the agent has made for this worker.
    ///
    /// # Errors
    /// There is no agent at the socket, the ring cannot be opened, or a thread cannot be made.
    pub fn connect(socket: &Path, flight: &Path, hello: &Hello) -> Result<Self, ControlError> {
        let flight = Recorder::open(flight).map_err(ControlError::Start)?;
        let shared = Arc::new(Shared::new(flight));
        let (outgoing, queue) = mpsc::channel(QUEUE);
        outgoing
            .try_send(wire::WorkerMessage {
                identity: Some(wire::Identity::default()),
                body: Some(convert::hello(hello)),
            })
            .expect("the queue is empty and its receiver is held here");
        let thread = link::start(socket, queue, Arc::clone(&shared))?;
        Ok(Self { shared, outgoing: Some(outgoing), thread: Some(thread) })
    }

    /// A session without a connection, whose agent a test plays; its flight recorder lies in `folder`.
    #[cfg(test)]
    pub(crate) fn detached(folder: &Path, index: u32) -> (Self, super::line::Line) {
        let ring = flight::path(folder, index);
        std::fs::create_dir_all(ring.parent().unwrap()).unwrap();
        FlightLog::create(&ring, Duration::from_millis(100)).unwrap();
        let shared = Arc::new(Shared::new(Recorder::open(&ring).unwrap()));
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let line = super::line::Line::new(queue, Arc::clone(&shared));
        (Self { shared, outgoing: Some(outgoing), thread: None }, line)
    }

    /// Waits for the next directive. A worker that waits is idle, whatever it did before.
    ///
    /// # Errors
    /// The agent is gone, and every directive that had come was handed out.
    pub fn next_directive(&self) -> Result<Directive, ControlError> {
        self.shared.flight.awaits_control();
        let mut inbox = self.shared.inbox();
        loop {
            if let Some(directive) = inbox.directives.pop_front() {
                return Ok(directive);
            }
            if let Some(reason) = &inbox.closed {
                return Err(ControlError::AgentLost(reason.clone()));
            }
            self.shared.flight.turn_to(Generation(inbox.identity.generation), StepPhase::Idle);
            inbox = self.shared.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What the operator wishes; read at each step boundary and agreed on by all ranks before anyone acts.
    pub fn flags(&self) -> Flags {
        Flags {
            stop: self.shared.stop.load(Ordering::Acquire),
            checkpoint: self.shared.checkpoint.load(Ordering::Acquire),
            reconfigure: self.shared.reconfigure.load(Ordering::Acquire),
        }
    }

    /// Waits for the next directive of a generation that this worker lives in.
    ///
    /// # Errors
    /// The generation is over: by an abort, by a newer one, or with the run. What ended it is left to
    /// [`Self::next_directive`]. Or the agent is gone.
    pub fn next_within(&self, generation: Generation) -> Result<Directive, ControlError> {
        self.shared.flight.awaits_control();
        let mut inbox = self.shared.inbox();
        loop {
            if let Some(reason) = inbox.over(generation) {
                return Err(ControlError::Aborted { generation, reason });
            }
            match inbox.directives.front() {
                Some(Directive::Shutdown) => {
                    let reason = "the run is over".to_owned();
                    return Err(ControlError::Aborted { generation, reason });
                }
                Some(_) => {
                    if let Some(directive) = inbox.directives.pop_front() {
                        return Ok(directive);
                    }
                }
                None => {}
            }
            if let Some(reason) = &inbox.closed {
                return Err(ControlError::AgentLost(reason.clone()));
            }
            inbox = self.shared.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Why a generation is over, if it is.
    pub fn over(&self, generation: Generation) -> Option<String> {
        let inbox = self.shared.inbox();
        inbox.over(generation).or_else(|| inbox.closed.clone())
    }

    /// Has `abort` called, on the session's thread, whenever a generation ends or the agent is lost.
    ///
    /// It must return soon: while it runs, nothing is received. What ended before it was set is not told again: ask
    /// [`Self::over`] afterwards.
    pub fn on_abort(&self, abort: OnAbort) {
        *self.shared.on_abort.lock().unwrap_or_else(PoisonError::into_inner) = Some(abort);
    }

    /// Says what this worker does from now on, where its agent can see it even after a kill: one unit of it, such as one
    /// video, since what takes far longer than usual is taken for a hang.
    pub fn enter(&self, step: Step, phase: StepPhase) {
        let generation = Generation(self.shared.inbox().identity.generation);
        self.shared.flight.enter(generation, step, phase);
    }

    /// Says that this worker is between two stages: whoever watches must not expect of the next one what this one took.
    pub fn rest(&self) {
        self.turn_to(StepPhase::Idle);
    }

    /// Says that this worker waits for the coordinator, and will then go on as before.
    pub fn pause(&self) {
        self.turn_to(StepPhase::Wait);
    }

    fn turn_to(&self, phase: StepPhase) {
        self.shared.flight.turn_to(Generation(self.shared.inbox().identity.generation), phase);
    }

    /// Does some work that is a phase of its own within another, which goes on afterwards.
    pub fn during<T>(&self, phase: StepPhase, work: impl FnOnce() -> T) -> T {
        let (step, around) = self.shared.flight.current();
        if around == phase {
            return work();
        }
        self.enter(step, phase);
        let done = work();
        let generation = Generation(self.shared.inbox().identity.generation);
        self.shared.flight.resume(generation, step, around);
        done
    }

    /// The state of the generation is loaded and all peers are reached.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn ready(&self, generation: Generation) -> Result<(), ControlError> {
        self.send(generation, wire::worker_message::Body::Ready(wire::Ready {}))
    }

    /// Tells how far the stage has come. Never blocks, and every step arrives: what waits is sent before anything that is
    /// said later. Only an agent that takes nothing for `PROGRESS_QUEUE` steps misses the oldest of them.
    pub fn progress(&self, generation: Generation, progress: &Progress) {
        let message = self.message(generation, convert::progress(progress));
        let mut waiting = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == PROGRESS_QUEUE {
            waiting.pop_front();
            tracing::warn!("the agent takes no progress: the oldest step that waits is forgotten");
        }
        waiting.push_back(message);
        drop(waiting);
        self.shared.flight.says();
        self.shared.wake.notify_one();
    }

    /// Everything this rank gives to a checkpoint is durable.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn parts_saved(&self, generation: Generation, saved: &SavedParts) -> Result<(), ControlError> {
        self.send(generation, convert::parts_saved(saved))
    }

    /// The newest checkpoint that this worker knows to be in the chain: stage, step and place.
    pub fn committed(&self) -> Option<(Stage, Step, u64)> {
        self.shared.inbox().committed.map(|((stage, step), sequence)| (stage, step, sequence))
    }

    /// Waits until the checkpoint of that step, or a newer one, is in the chain; gives its place there.
    ///
    /// # Errors
    /// The generation was aborted, the agent is gone, or the time is over.
    pub fn wait_committed(
        &self,
        generation: Generation,
        stage: Stage,
        step: Step,
        timeout: Duration,
    ) -> Result<u64, ControlError> {
        let what = format!("the commit of {step}");
        self.wait(timeout, &what, |inbox| match &inbox.committed {
            Some((at, sequence)) if *at >= (stage, step) => Some(Ok(*sequence)),
            _ => {
                let reason = inbox.over(generation)?;
                Some(Err(ControlError::Aborted { generation, reason }))
            }
        })
    }

    /// Hands over all detections of one video.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn detections(
        &self,
        generation: Generation,
        step: Step,
        video: &str,
        detections: &[Detection],
    ) -> Result<(), ControlError> {
        self.send(generation, convert::detections(step, video, detections))
    }

    /// This rank has handed over all its videos; [`Directive::Validated`] follows when every rank has.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn validation_done(&self, generation: Generation, step: Step) -> Result<(), ControlError> {
        let body = wire::worker_message::Body::ValidationDone(wire::ValidationDone { step: step.0 });
        self.send(generation, body)
    }

    /// Something a user should know that does not end the run.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn warning(&self, generation: Generation, text: impl Into<String>) -> Result<(), ControlError> {
        self.send(generation, wire::worker_message::Body::Warning(wire::Warning { text: text.into() }))
    }

    /// A collective did not come to its end. The cause is mostly another worker's death, which the coordinator finds:
    /// wait for the next directive after this ([`Directive::Abort`] follows in any case).
    ///
    /// # Errors
    /// The agent is gone.
    pub fn collective_failed(
        &self,
        generation: Generation,
        message: impl Into<String>,
    ) -> Result<(), ControlError> {
        let body = wire::CollectiveFailed { message: message.into() };
        self.send(generation, wire::worker_message::Body::CollectiveFailed(body))
    }

    /// This worker cannot go on: `message` says why as a sentence, and is what the user will read. Returns when the agent
    /// has it, so that the process may end at once.
    ///
    /// # Errors
    /// The agent is gone, or does not answer.
    pub fn failed(
        &self,
        generation: Generation,
        message: impl Into<String>,
        hint: Option<String>,
        scope: FailureScope,
    ) -> Result<(), ControlError> {
        let body = wire::Failed {
            message: message.into(),
            hint,
            scope: convert::scope(scope).into(),
            log: Vec::new(),
        };
        self.send(generation, wire::worker_message::Body::Failed(body))?;
        self.wait(LAST_WORDS, "the agent's answer", |inbox| inbox.noted.then_some(Ok(())))
    }

    /// This worker has left its generation and touches nothing of the run until the next [`Directive::Form`].
    ///
    /// # Errors
    /// The agent is gone.
    pub fn left(&self, generation: Generation, kept: Option<&Kept>) -> Result<(), ControlError> {
        self.send(generation, convert::left(kept))
    }

    /// This worker has nothing more to do in the generation; [`Directive::Shutdown`] follows when no rank has.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn finished(&self, generation: Generation, step: Step, ending: Ending) -> Result<(), ControlError> {
        let body = wire::Finished { step: step.0, stopped: ending == Ending::Stopped };
        self.send(generation, wire::worker_message::Body::Finished(body))
    }

    fn message(&self, generation: Generation, body: wire::worker_message::Body) -> wire::WorkerMessage {
        let identity = self.shared.inbox().identity_in(generation);
        wire::WorkerMessage { identity: Some(identity), body: Some(body) }
    }

    fn send(&self, generation: Generation, body: wire::worker_message::Body) -> Result<(), ControlError> {
        let message = self.message(generation, body);
        self.shared.inbox().retained.said(&message);
        self.shared.flight.says();
        // There is room at most times; whoever sends counts on it and may have to wait all the same.
        self.shared.flight.awaits_control();
        let queue = self.outgoing.as_ref().expect("only `drop` takes it");
        queue.blocking_send(message).map_err(|_| {
            let reason = self.shared.inbox().closed.clone();
            ControlError::AgentLost(reason.unwrap_or_else(|| "the session has ended".to_owned()))
        })
    }

    fn wait<T>(
        &self,
        timeout: Duration,
        what: &str,
        mut answer: impl FnMut(&Inbox) -> Option<Result<T, ControlError>>,
    ) -> Result<T, ControlError> {
        self.shared.flight.awaits_control();
        let deadline = Instant::now() + timeout;
        let mut inbox = self.shared.inbox();
        loop {
            if let Some(answer) = answer(&inbox) {
                return answer;
            }
            if let Some(reason) = &inbox.closed {
                return Err(ControlError::AgentLost(reason.clone()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ControlError::Late { what: what.to_owned(), seconds: timeout.as_secs_f64() });
            }
            let (back, _) =
                self.shared.changed.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner);
            inbox = back;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        // The end of the queue is what ends the session's thread, after it has sent what is in it.
        self.outgoing = None;
        if self.thread.is_none() {
            return;
        }
        let closed = self.wait(LAST_WORDS, "the end of the session", |_| None::<Result<(), _>>);
        if let (Err(ControlError::AgentLost(_)), Some(thread)) = (closed, self.thread.take()) {
            // A panic there has been reported by the panic hook; there is nothing left to end.
            drop(thread.join());
        }
    }
}
