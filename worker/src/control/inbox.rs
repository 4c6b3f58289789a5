//! State shared by the training thread and the session's thread: received orders and messages to send.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use longtake_shared::ids::{Generation, Incarnation, Step};
use longtake_shared::protocol::flight::Recorder;
use longtake_shared::protocol::{Identity, Malformed, Order, SavedStage, WorkerMessage, WorkerOrder};
use tokio::sync::Notify;

use super::directive::{Assignment, Directive};
use super::retained::Retained;

/// Number of earlier generations whose identity a worker remembers.
const FORMER: usize = 8;

/// Called on the session's thread when a generation ends, to abort its collective.
pub type OnAbort = Box<dyn Fn(Generation, &str) + Send>;

/// State shared by the training thread and the session's thread.
pub(super) struct Shared {
    pub(super) inbox: Mutex<Inbox>,
    pub(super) changed: Condvar,
    pub(super) stop: AtomicBool,
    pub(super) checkpoint: AtomicBool,
    pub(super) reconfigure: AtomicBool,
    /// Whether this side is closing the connection.
    pub(super) closing: AtomicBool,
    pub(super) on_abort: Mutex<Option<OnAbort>>,
    /// Progress messages to send.
    pub(super) progress: Mutex<VecDeque<WorkerMessage>>,
    /// Messages to repeat to a new coordinator, before any other.
    pub(super) again: Mutex<VecDeque<WorkerMessage>>,
    /// Notified when `progress` or `again` has grown.
    pub(super) wake: Notify,
    /// The flight recorder, which the agent reads.
    pub(super) flight: Recorder,
}

/// Received orders that the training thread has not taken yet.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) directives: VecDeque<Directive>,
    /// Identity of this worker since its last `Form`.
    pub(super) identity: Identity,
    /// Its identity in earlier generations: its last messages in each carry it.
    pub(super) former: BTreeMap<Generation, Identity>,
    /// The newest incarnation that gave an order.
    pub(super) incarnation: Incarnation,
    /// Messages that no order has answered.
    pub(super) retained: Retained,
    pub(super) committed: Option<((SavedStage, Step), u64)>,
    pub(super) aborted: Option<(Generation, String)>,
    /// Whether the agent has received this worker's `Failed` message.
    pub(super) noted: bool,
    /// The cause of the end of the connection.
    pub(super) closed: Option<String>,
}

impl Inbox {
    /// The cause of the end of a generation, if it is over.
    pub(super) fn over(&self, generation: Generation) -> Option<String> {
        if let Some((over, reason)) = &self.aborted
            && *over >= generation
        {
            return Some(reason.clone());
        }
        let newest = self.identity.generation;
        (newest > generation).then(|| format!("{newest} takes its place"))
    }

    /// Queues a directive for the training thread. Returns the generation that it ends, if any, with the cause.
    fn take(&mut self, directive: Directive, identity: Identity) -> Option<(Generation, String)> {
        let over = match &directive {
            Directive::Form(assignment) => {
                let former = std::mem::replace(&mut self.identity, identity);
                let over = (former.incarnation > Incarnation(0))
                    .then(|| (former.generation, format!("{} takes its place", assignment.generation)));
                self.former.insert(former.generation, former);
                if self.former.len() > FORMER {
                    self.former.pop_first();
                }
                self.directives.clear();
                self.committed = None;
                over
            }
            Directive::Abort { generation, reason } => {
                self.directives.clear();
                self.aborted = Some((*generation, reason.clone()));
                self.aborted.clone()
            }
            _ => None,
        };
        self.directives.push_back(directive);
        over
    }

    /// Identity of this worker in a generation.
    pub(super) fn identity_in(&self, generation: Generation) -> Identity {
        let known = self.former.get(&generation).unwrap_or(&self.identity);
        Identity { generation, ..known.clone() }
    }
}

impl Shared {
    /// An empty state.
    pub(super) fn new(flight: Recorder) -> Self {
        Self {
            inbox: Mutex::default(),
            changed: Condvar::default(),
            stop: AtomicBool::default(),
            checkpoint: AtomicBool::default(),
            reconfigure: AtomicBool::default(),
            closing: AtomicBool::default(),
            on_abort: Mutex::default(),
            progress: Mutex::default(),
            again: Mutex::default(),
            wake: Notify::default(),
            flight,
        }
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message to send before the queue: a repeated one, or else the oldest progress.
    pub(super) fn take_first(&self) -> Option<WorkerMessage> {
        let again = self.again.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        again.or_else(|| self.take_progress())
    }

    fn take_progress(&self) -> Option<WorkerMessage> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Handles an order of the agent. An order of an older generation or incarnation is dropped.
    pub(super) fn receive(&self, order: WorkerOrder) {
        let mut inbox = self.inbox();
        if order.order == Order::Noted {
            inbox.noted = true;
            drop(inbox);
            self.changed.notify_all();
            return;
        }
        let identity = &order.identity;
        if identity.incarnation < inbox.incarnation || identity.generation < inbox.identity.generation {
            tracing::debug!(generation = %identity.generation, "a stale order is dropped");
            return;
        }
        let formed =
            inbox.identity.generation == identity.generation && inbox.identity.incarnation > Incarnation(0);
        if formed && matches!(order.order, Order::Form(_)) {
            tracing::debug!(generation = %identity.generation, "this generation is formed already");
            return;
        }
        inbox.incarnation = identity.incarnation;
        inbox.retained.answered(&order.order);
        let over = match self.obey(&mut inbox, order) {
            Ok(over) => over,
            Err(malformed) => {
                tracing::error!(%malformed, "an order of the agent is malformed");
                None
            }
        };
        drop(inbox);
        self.changed.notify_all();
        if let Some((generation, reason)) = over {
            self.abort(generation, &reason);
        }
    }

    /// Executes a current order. Returns the generation that it ends, if any, with the cause.
    fn obey(&self, inbox: &mut Inbox, order: WorkerOrder) -> Result<Option<(Generation, String)>, Malformed> {
        let WorkerOrder { identity, order, inputs } = order;
        let generation = identity.generation;
        let directive = match order {
            Order::Form(formation) => {
                let inputs = inputs.ok_or(Malformed::Missing("form.inputs"))?;
                self.reconfigure.store(false, Ordering::Release);
                Directive::Form(Box::new(Assignment::new(&identity, formation, &inputs)?))
            }
            Order::Train => Directive::Train { generation },
            Order::Abort { reason } => Directive::Abort { generation, reason },
            Order::Validated { step, average_map, best } => Directive::Validated { step, average_map, best },
            Order::Shutdown => Directive::Shutdown,
            Order::SetFlags(flags) => {
                self.stop.store(flags.stop, Ordering::Release);
                self.checkpoint.store(flags.checkpoint, Ordering::Release);
                self.reconfigure.store(flags.reconfigure, Ordering::Release);
                return Ok(None);
            }
            Order::Committed { stage, step, sequence } => {
                inbox.committed = Some(((stage, step), sequence));
                return Ok(None);
            }
            Order::Adopted => {
                let again = inbox.retained.all();
                self.again.lock().unwrap_or_else(PoisonError::into_inner).extend(again);
                self.wake.notify_one();
                return Ok(None);
            }
            Order::Noted => return Ok(None),
        };
        Ok(inbox.take(directive, identity))
    }

    /// Marks the connection as ended.
    pub(super) fn close(&self, reason: &str) {
        let mut inbox = self.inbox();
        let generation = inbox.identity.generation;
        inbox.closed.get_or_insert_with(|| reason.to_owned());
        drop(inbox);
        self.changed.notify_all();
        if self.closing.load(Ordering::Acquire) {
            return;
        }
        self.abort(generation, &format!("the connection to the agent is lost: {reason}"));
    }

    fn abort(&self, generation: Generation, reason: &str) {
        let on_abort = self.on_abort.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(on_abort) = on_abort.as_ref() {
            on_abort(generation, reason);
        }
    }
}
