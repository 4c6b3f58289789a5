//! The training thread's side of the link to the agent: the messages it sends and the orders it receives.

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
    Detection, Ending, FailureScope, Flags, Kept, Progress, SavedParts, SavedStage, VideoDetections,
    WorkerHello, WorkerMessage, WorkerReport,
};
use tokio::sync::mpsc;

use super::inbox::{Inbox, OnAbort, Shared};
use super::{ControlError, Directive, link};

/// Capacity of the message queue; the training thread waits when it is full.
const QUEUE: usize = 256;

/// Capacity of the progress queue in messages, about 8 MB. A live agent never lets it fill.
const PROGRESS_QUEUE: usize = 16_384;

/// How long a failing or ending worker waits until its last message is received.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A worker's link to its agent. All methods except [`Session::connect`] may be called from any thread outside tokio.
///
/// Dropping it sends the remaining messages and closes the connection.
pub struct Session {
    shared: Arc<Shared>,
    /// Absent once the session is closing.
    outgoing: Option<mpsc::Sender<WorkerMessage>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Connects to the agent and sends the hello; `flight` is the flight recorder file that the agent has created.
    ///
    /// # Errors
    /// No agent listens on the socket, the file cannot be opened, or a thread cannot be started.
    pub fn connect(socket: &Path, flight: &Path, hello: WorkerHello) -> Result<Self, ControlError> {
        let flight = Recorder::open(flight).map_err(ControlError::Start)?;
        let shared = Arc::new(Shared::new(flight));
        let (outgoing, queue) = mpsc::channel(QUEUE);
        outgoing
            .try_send(WorkerMessage::Hello(hello))
            .expect("the queue is empty and its receiver is held here");
        let thread = link::start(socket, queue, Arc::clone(&shared))?;
        Ok(Self { shared, outgoing: Some(outgoing), thread: Some(thread) })
    }

    /// A session without a connection, for tests that play the agent; its flight recorder lies in `folder`.
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

    /// Waits for the next directive; meanwhile the worker counts as idle.
    ///
    /// # Errors
    /// The connection to the agent is lost, and all received directives were taken.
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
            self.shared.flight.turn_to(inbox.identity.generation, StepPhase::Idle);
            inbox = self.shared.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The requests of the operator. Read at each step boundary; all ranks agree on them before one acts.
    pub fn flags(&self) -> Flags {
        Flags {
            stop: self.shared.stop.load(Ordering::Acquire),
            checkpoint: self.shared.checkpoint.load(Ordering::Acquire),
            reconfigure: self.shared.reconfigure.load(Ordering::Acquire),
        }
    }

    /// Waits for the next directive of the generation that this worker belongs to.
    ///
    /// # Errors
    /// The generation is over, by an abort, a newer generation or the end of the run; the directive that ended it is left to
    /// [`Self::next_directive`]. Or the connection to the agent is lost.
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

    /// The cause of the end of a generation, if it is over.
    pub fn over(&self, generation: Generation) -> Option<String> {
        let inbox = self.shared.inbox();
        inbox.over(generation).or_else(|| inbox.closed.clone())
    }

    /// Calls `abort` on the session's thread whenever a generation ends or the agent is lost.
    ///
    /// It must return soon: no order is received while it runs. It is not called for a generation that ended before: check
    /// [`Self::over`] afterwards.
    pub fn on_abort(&self, abort: OnAbort) {
        *self.shared.on_abort.lock().unwrap_or_else(PoisonError::into_inner) = Some(abort);
    }

    /// Records the phase that begins now, where the agent can read it even after a kill. Call it for each unit of work, such as
    /// one video: a phase that lasts far longer than usual counts as a hang.
    pub fn enter(&self, step: Step, phase: StepPhase) {
        let generation = self.shared.inbox().identity.generation;
        self.shared.flight.enter(generation, step, phase);
    }

    /// Records that this worker is between two stages, whose phases do not last equally long.
    pub fn rest(&self) {
        self.turn_to(StepPhase::Idle);
    }

    /// Records that this worker waits for the coordinator within a stage.
    pub fn pause(&self) {
        self.turn_to(StepPhase::Wait);
    }

    fn turn_to(&self, phase: StepPhase) {
        self.shared.flight.turn_to(self.shared.inbox().identity.generation, phase);
    }

    /// Runs work that is a phase of its own within another phase, which continues afterwards.
    pub fn during<T>(&self, phase: StepPhase, work: impl FnOnce() -> T) -> T {
        let (step, around) = self.shared.flight.current();
        if around == phase {
            return work();
        }
        self.enter(step, phase);
        let done = work();
        let generation = self.shared.inbox().identity.generation;
        self.shared.flight.resume(generation, step, around);
        done
    }

    /// Reports that the state of the generation is loaded and all peers are reached.
    ///
    /// # Errors
    /// The connection to the agent is lost.
    pub fn ready(&self, generation: Generation) -> Result<(), ControlError> {
        self.send(generation, WorkerReport::Ready)
    }

    /// Reports the progress of the stage. Never blocks, and every step arrives, before any later message. Only an agent that
    /// receives nothing for `PROGRESS_QUEUE` steps misses the oldest of them.
    pub fn progress(&self, generation: Generation, progress: &Progress) {
        let message = self.message(generation, WorkerReport::Progress(progress.clone()));
        let mut waiting = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == PROGRESS_QUEUE {
            waiting.pop_front();
            tracing::warn!("the agent receives no progress: the oldest waiting step is dropped");
        }
        waiting.push_back(message);
        drop(waiting);
        self.shared.flight.says();
        self.shared.wake.notify_one();
    }

    /// Reports that this rank's parts of a checkpoint are durable.
    ///
    /// # Errors
    /// The connection to the agent is lost.
    pub fn parts_saved(&self, generation: Generation, saved: SavedParts) -> Result<(), ControlError> {
        self.send(generation, WorkerReport::PartsSaved(saved))
    }

    /// The newest checkpoint known to be in the chain: stage, step and position.
    pub fn committed(&self) -> Option<(SavedStage, Step, u64)> {
        self.shared.inbox().committed.map(|((stage, step), sequence)| (stage, step, sequence))
    }

    /// Waits until the checkpoint of that step, or a newer one, is in the chain, and returns its position there.
    ///
    /// # Errors
    /// The generation was aborted, the connection to the agent is lost, or the time is over.
    pub fn wait_committed(
        &self,
        generation: Generation,
        stage: SavedStage,
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

    /// Sends all detections of one video.
    ///
    /// # Errors
    /// The connection to the agent is lost.
    pub fn detections(
        &self,
        generation: Generation,
        step: Step,
        video: &str,
        detections: Vec<Detection>,
    ) -> Result<(), ControlError> {
        let found = VideoDetections { step, video: video.to_owned(), detections };
        self.send(generation, WorkerReport::Detections(found))
    }

    /// Reports that this rank has sent the detections of all its videos; [`Directive::Validated`] follows when all ranks have.
    ///
    /// # Errors
    /// The connection to the agent is lost.
    pub fn validation_done(&self, generation: Generation, step: Step) -> Result<(), ControlError> {
        self.send(generation, WorkerReport::ValidationDone { step })
    }

    /// Reports a problem that does not end the run, for the user.
    ///
    /// # Errors
    /// The connection to the agent is lost.
    pub fn warning(&self, generation: Generation, text: impl Into<String>) -> Result<(), ControlError> {
        self.send(generation, WorkerReport::Warning(text.into()))
    }

    /// Reports that a collective operation failed. The usual cause is the death of another worker, which the coordinator
    /// detects: wait for the next directive afterwards; [`Directive::Abort`] follows in any case.
    ///
    /// # Errors
    /// The connection to the agent is lost.
    pub fn collective_failed(
        &self,
        generation: Generation,
        message: impl Into<String>,
    ) -> Result<(), ControlError> {
        self.send(generation, WorkerReport::CollectiveFailed { message: message.into() })
    }

    /// Reports that this worker cannot continue; the user will read `message`, a sentence with the cause. Returns when the agent
    /// has received it, so that the process may end at once.
    ///
    /// # Errors
    /// The connection to the agent is lost, or the agent does not answer.
    pub fn failed(
        &self,
        generation: Generation,
        message: impl Into<String>,
        hint: Option<String>,
        scope: FailureScope,
    ) -> Result<(), ControlError> {
        let (message, log) = (message.into(), Vec::new());
        self.send(generation, WorkerReport::Failed { message, hint, scope, log })?;
        self.wait(LAST_WORDS, "the agent's answer", |inbox| inbox.noted.then_some(Ok(())))
    }

    /// Reports that this worker has left its generation; it changes nothing of the run until the next [`Directive::Form`].
    ///
    /// # Errors
    /// The connection to the agent is lost.
    pub fn left(&self, generation: Generation, kept: Option<Kept>) -> Result<(), ControlError> {
        self.send(generation, WorkerReport::Left { kept })
    }

    /// Reports that this worker has finished its work in the generation; [`Directive::Shutdown`] follows when all ranks have.
    ///
    /// # Errors
    /// The connection to the agent is lost.
    pub fn finished(&self, generation: Generation, step: Step, ending: Ending) -> Result<(), ControlError> {
        self.send(generation, WorkerReport::Finished { step, ending })
    }

    fn message(&self, generation: Generation, report: WorkerReport) -> WorkerMessage {
        WorkerMessage::Report { identity: self.shared.inbox().identity_in(generation), report }
    }

    fn send(&self, generation: Generation, report: WorkerReport) -> Result<(), ControlError> {
        let message = self.message(generation, report);
        self.shared.inbox().retained.said(&message);
        self.shared.flight.says();
        // The queue is rarely full, but sending may wait.
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
        // The end of the queue ends the session's thread, after it has sent the remaining messages.
        self.outgoing = None;
        if self.thread.is_none() {
            return;
        }
        let closed = self.wait(LAST_WORDS, "the end of the session", |_| None::<Result<(), _>>);
        if let (Err(ControlError::AgentLost(_)), Some(thread)) = (closed, self.thread.take()) {
            // The panic hook has reported a panic of the thread.
            drop(thread.join());
        }
    }
}
