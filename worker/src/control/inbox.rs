//! What the training thread and the session's thread both touch: orders that have come, words that wait to be said.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use longtake_shared::ids::{Generation, Step};
use longtake_shared::protocol::flight::Recorder;
use longtake_shared::protocol::{Directive, Stage, wire};
use tokio::sync::Notify;

use super::convert::{self, Order};
use super::retained::Retained;

/// Generations before the newest of which a worker knows who it was.
const FORMER: usize = 8;

/// Called on the session's thread when a generation is over, so that a collective can be aborted.
pub type OnAbort = Box<dyn Fn(Generation, &str) + Send>;

/// What the training thread and the session's thread both touch.
pub(super) struct Shared {
    pub(super) inbox: Mutex<Inbox>,
    pub(super) changed: Condvar,
    pub(super) stop: AtomicBool,
    pub(super) checkpoint: AtomicBool,
    pub(super) reconfigure: AtomicBool,
    /// This side ends the connection.
    pub(super) closing: AtomicBool,
    pub(super) on_abort: Mutex<Option<OnAbort>>,
    /// Progress that has not been sent.
    pub(super) progress: Mutex<VecDeque<wire::WorkerMessage>>,
    /// What a new coordinator has to hear again, before anything else.
    pub(super) again: Mutex<VecDeque<wire::WorkerMessage>>,
    /// Told when `progress` or `again` has grown.
    pub(super) wake: Notify,
    /// What this worker does, where its agent can see it.
    pub(super) flight: Recorder,
}

/// What has come and has not been asked for yet.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) directives: VecDeque<Directive>,
    /// Who this worker is, since its last `Form`.
    pub(super) identity: wire::Identity,
    /// Who it was in the newest generations: its last words in each bear that name.
    pub(super) former: BTreeMap<u64, wire::Identity>,
    /// The newest incarnation that has given an order.
    pub(super) incarnation: u64,
    /// What no order has answered.
    pub(super) retained: Retained,
    pub(super) committed: Option<((Stage, Step), u64)>,
    pub(super) aborted: Option<(Generation, String)>,
    /// The agent has this worker's last words.
    pub(super) noted: bool,
    /// Why the connection is over.
    pub(super) closed: Option<String>,
}

impl Inbox {
    /// Why a generation is over, if it is.
    pub(super) fn over(&self, generation: Generation) -> Option<String> {
        if let Some((over, reason)) = &self.aborted
            && *over >= generation
        {
            return Some(reason.clone());
        }
        let newest = Generation(self.identity.generation);
        (newest > generation).then(|| format!("{newest} takes its place"))
    }

    /// Keeps a directive until it is asked for; the generation that it ends, if it ends one, and why.
    fn take(&mut self, directive: Directive, identity: wire::Identity) -> Option<(Generation, String)> {
        let over = match &directive {
            Directive::Form(assignment) => {
                let former = std::mem::replace(&mut self.identity, identity);
                let over = (former.incarnation > 0).then(|| {
                    (Generation(former.generation), format!("{} takes its place", assignment.generation))
                });
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

    /// Who this worker is, or was, in a generation.
    pub(super) fn identity_in(&self, generation: Generation) -> wire::Identity {
        let known = self.former.get(&generation.0).unwrap_or(&self.identity);
        wire::Identity { generation: generation.0, ..known.clone() }
    }
}

impl Shared {
    /// Nothing has come yet.
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

    /// What is to be said before everything else: what a new coordinator has to hear again, then the oldest progress.
    pub(super) fn take_first(&self) -> Option<wire::WorkerMessage> {
        let again = self.again.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        again.or_else(|| self.take_progress())
    }

    fn take_progress(&self) -> Option<wire::WorkerMessage> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Takes an order from the agent; one that is older than the newest generation is dropped.
    pub(super) fn receive(&self, order: wire::WorkerOrder) {
        let identity = order.identity.clone().unwrap_or_default();
        let order = match convert::order(order) {
            Ok(order) => order,
            Err(error) => {
                tracing::error!(%error, "an order of the agent makes no sense");
                return;
            }
        };
        let mut inbox = self.inbox();
        if order == Order::Noted {
            inbox.noted = true;
            drop(inbox);
            self.changed.notify_all();
            return;
        }
        if identity.incarnation < inbox.incarnation || identity.generation < inbox.identity.generation {
            tracing::debug!(generation = identity.generation, "a stale order is dropped");
            return;
        }
        let formed = inbox.identity.generation == identity.generation && inbox.identity.incarnation > 0;
        if formed && matches!(order, Order::Directive(Directive::Form(_))) {
            tracing::debug!(generation = identity.generation, "this generation is formed already");
            return;
        }
        inbox.incarnation = identity.incarnation;
        inbox.retained.answered(&order);
        let mut over = None;
        match order {
            Order::Directive(directive) => {
                if matches!(directive, Directive::Form(_)) {
                    self.reconfigure.store(false, Ordering::Release);
                }
                over = inbox.take(directive, identity);
            }
            Order::Flags(flags) => {
                self.stop.store(flags.stop, Ordering::Release);
                self.checkpoint.store(flags.checkpoint, Ordering::Release);
                self.reconfigure.store(flags.reconfigure, Ordering::Release);
            }
            Order::Committed { stage, step, sequence } => inbox.committed = Some(((stage, step), sequence)),
            Order::Adopted => {
                let again = inbox.retained.all();
                self.again.lock().unwrap_or_else(PoisonError::into_inner).extend(again);
                self.wake.notify_one();
            }
            Order::Noted => {}
        }
        drop(inbox);
        self.changed.notify_all();
        if let Some((generation, reason)) = over {
            self.abort(generation, &reason);
        }
    }

    /// The connection is over.
    pub(super) fn close(&self, reason: &str) {
        let mut inbox = self.inbox();
        let generation = Generation(inbox.identity.generation);
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
