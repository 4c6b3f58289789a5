//! What an agent decides, as a value: (now, input) -> outputs. No I/O, no clock, no randomness: [`crate::agent`] carries out.
//!
//! ```text
//!   Apart --Reached--> Greeted --Welcome--> Welcomed
//!     ^                   |                    |
//!     +---- link lost, no answer, own lease over (lasting agents; others end) ----+
//! ```
//!
//! **Invariant:** outside `Welcomed` the agent starts no worker and passes nothing on; the workers it holds go on stepping
//! inside their generation, until the grace is over. Ends of workers are kept until a coordinator has heard them.

mod interface;
mod messages;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use longtake_shared::hint::ExitCode;
use longtake_shared::ids::{RunId, WorkerId};
use longtake_shared::objects::RetryPolicy;
use longtake_shared::protocol::wire;
use wire::agent_message::Body as AgentBody;
use wire::agent_order::Body as OrderBody;

pub use interface::{
    AgentEnd, AgentIdentity, AgentInput, AgentOutput, Doing, Finished, LinkId, OnLoss, Reading, Terms,
};

use crate::run::membership::overslept;

pub(crate) use watch::{Expected, Watch};

/// How long the last words of a dead worker are waited for before its death is told.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Renewals, and looks at the workers, in a lease; more where that would be further apart than [`LOOK`].
const TICKS_PER_LEASE: u32 = 5;

/// A worker that hangs is noticed that much later at most.
const LOOK: Duration = Duration::from_millis(200);

/// Steps that are kept for a coordinator that was away: what a grace of a minute brings together at a hundred a second.
const STEPS_KEPT: usize = 8192;

/// Until a coordinator has told its own.
const FIRST_TERMS: Terms = Terms {
    lease: Duration::from_secs(1),
    grace: Duration::from_mins(1),
    phase_deadline: Duration::from_mins(2),
};

/// Pauses between two calls: a coordinator that is back is found within the longest.
const CALLS: RetryPolicy = RetryPolicy {
    attempts: u32::MAX,
    first: Duration::from_millis(20),
    factor: 2.0,
    longest: Duration::from_millis(200),
    // A call that is not answered ends with the lease.
    patience: Duration::MAX,
};

/// How the agent stands with its coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    /// It calls.
    Apart {
        /// Since when there is no contact.
        since: Duration,
        /// Calls that came to nothing.
        failed: u32,
    },
    /// It has said hello.
    Greeted {
        /// As above.
        since: Duration,
        /// As above.
        failed: u32,
        /// When.
        at: Duration,
    },
    /// It belongs to the run.
    Welcomed,
}

/// A worker whose end is not settled.
#[derive(Debug)]
struct Worker {
    index: u32,
    /// What it said first.
    hello: Option<wire::WorkerHello>,
    link: Option<LinkId>,
    /// Its end, and until when its last words are waited for.
    ended: Option<(wire::WorkerExited, Duration)>,
    watch: Watch,
}

/// The end of a worker.
#[derive(Debug)]
struct End {
    exited: wire::WorkerExited,
    /// When it was told; what was told shortly before a link broke may not have been heard.
    told: Option<Duration>,
}

/// The agent.
#[derive(Debug)]
pub struct AgentCore {
    identity: AgentIdentity,
    run: RunId,
    /// The newest incarnation that is known; what speaks for an older one is dropped.
    incarnation: u64,
    terms: Terms,
    contact: Contact,
    /// When the newest message was sent that the coordinator is known to have taken in.
    heard: Duration,
    /// When the renewals were sent that are not answered yet.
    unanswered: VecDeque<Duration>,
    workers: BTreeMap<WorkerId, Worker>,
    ends: Vec<End>,
    /// What there was to tell between the hello, which lacks it, and the welcome.
    untold: Vec<AgentBody>,
    /// Steps that were told and may not have been heard, with the time when they were told.
    steps: VecDeque<(Duration, wire::FromWorker)>,
    last_tick: Duration,
}

impl AgentCore {
    /// An agent that has never had a coordinator, and its first outputs.
    pub fn new(identity: AgentIdentity, now: Duration) -> (Self, Vec<AgentOutput>) {
        let core = Self {
            identity,
            run: RunId(String::new()),
            incarnation: 0,
            terms: FIRST_TERMS,
            contact: Contact::Apart { since: now, failed: 0 },
            heard: now,
            unanswered: VecDeque::new(),
            workers: BTreeMap::new(),
            ends: Vec::new(),
            untold: Vec::new(),
            steps: VecDeque::new(),
            last_tick: now,
        };
        (core, vec![AgentOutput::Call { after: Duration::ZERO }])
    }

    /// How often `Tick` is due.
    pub fn tick_period(&self) -> Duration {
        (self.terms.lease / TICKS_PER_LEASE).min(LOOK)
    }

    /// Whether the agent belongs to the run as far as it knows: what it says may be taken for current.
    pub fn is_welcomed(&self) -> bool {
        self.contact == Contact::Welcomed
    }

    /// Whether there may be more to tell of a worker.
    pub fn holds(&self, worker: &WorkerId) -> bool {
        self.workers.contains_key(worker)
    }

    /// Whose link that is.
    pub fn worker_of(&self, link: LinkId) -> Option<&WorkerId> {
        self.workers.iter().find(|(_, worker)| worker.link == Some(link)).map(|(id, _)| id)
    }

    /// What the coordinator has told.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Takes in what has happened, and says what is to be done, in this order.
    pub fn handle(&mut self, now: Duration, input: AgentInput) -> Vec<AgentOutput> {
        let mut outputs = Vec::new();
        if let AgentInput::Order(wire::AgentOrder { body: Some(OrderBody::Renewed(_)), .. }) = &input {
            self.heard = self.heard.max(self.unanswered.pop_front().unwrap_or_default());
        }
        self.watch_own_lease(now, &mut outputs);
        self.react(now, input, &mut outputs);
        outputs
    }

    fn react(&mut self, now: Duration, input: AgentInput, outputs: &mut Vec<AgentOutput>) {
        match input {
            AgentInput::Reached { run } => self.greet(now, run, outputs),
            AgentInput::Lost { reason } => self.lost(now, reason, outputs),
            AgentInput::Refused { reason } => outputs.push(AgentOutput::End(AgentEnd::Refused(reason))),
            AgentInput::Order(order) => self.order(now, order, outputs),
            AgentInput::WorkerJoined { link, hello } => self.worker_joined(link, hello, outputs),
            AgentInput::WorkerSaid { link, message } => self.worker_said(now, link, message, outputs),
            AgentInput::WorkerSilent { link } => {
                let Some(id) = self.worker_of(link).cloned() else { return };
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.link = None;
                }
                self.settle(now, &id, outputs);
            }
            AgentInput::StartFailed { worker, message } => {
                self.workers.remove(&worker);
                let failed = wire::StartFailed { worker: worker.0, message };
                self.send(AgentBody::StartFailed(failed), outputs);
            }
            AgentInput::Ended { worker, cause, log, last } => {
                if let Some(known) = self.workers.get_mut(&worker) {
                    let exited = messages::exited(now, &worker, cause, log, last);
                    known.ended = Some((exited, now + LAST_WORDS));
                    if known.link.is_none() {
                        self.settle(now, &worker, outputs);
                    }
                }
            }
            AgentInput::Tick { readings } => self.tick(now, readings, outputs),
        }
    }

    /// A lease that is over by the agent's own clock is over for the coordinator too, whatever still comes over the link.
    fn watch_own_lease(&mut self, now: Duration, outputs: &mut Vec<AgentOutput>) {
        let over = now.saturating_sub(self.heard) > self.terms.lease;
        if over && self.is_welcomed() && self.identity.on_loss == OnLoss::Reconnect {
            self.contact = Contact::Apart { since: now, failed: 0 };
            outputs.extend([AgentOutput::HangUp, AgentOutput::Call { after: Duration::ZERO }]);
        }
    }

    fn greet(&mut self, now: Duration, run: RunId, outputs: &mut Vec<AgentOutput>) {
        let Contact::Apart { since, failed } = self.contact else { return };
        self.run = run;
        let over: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.ended.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            self.settle(now, &id, outputs);
        }
        self.contact = Contact::Greeted { since, failed, at: now };
        self.unanswered.clear();
        self.untold.clear();
        let hello = messages::hello(&self.identity, &self.run, &self.workers, &self.ends);
        outputs.push(AgentOutput::Send(self.message(AgentBody::Hello(hello))));
    }

    fn lost(&mut self, now: Duration, reason: String, outputs: &mut Vec<AgentOutput>) {
        if self.identity.on_loss == OnLoss::End {
            outputs.push(AgentOutput::End(AgentEnd::Lost(reason)));
            return;
        }
        let (since, failed) = match self.contact {
            Contact::Welcomed => (now, 0),
            Contact::Apart { since, failed } | Contact::Greeted { since, failed, .. } => (since, failed + 1),
        };
        self.contact = Contact::Apart { since, failed };
        if now.saturating_sub(since) >= self.terms.grace {
            outputs.push(AgentOutput::End(AgentEnd::GraceOver { grace: self.terms.grace, reason }));
            return;
        }
        // Never nothing: calls are not counted.
        let pause = CALLS.delay(failed, &self.identity.agent.0).filter(|_| failed > 0);
        outputs.push(AgentOutput::Call { after: pause.unwrap_or_default() });
    }

    fn order(&mut self, now: Duration, order: wire::AgentOrder, outputs: &mut Vec<AgentOutput>) {
        let Some(body) = order.body else { return };
        if let OrderBody::Renewed(_) = body {
            return;
        }
        if order.incarnation < self.incarnation {
            if matches!(body, OrderBody::Welcome(_)) {
                outputs.push(AgentOutput::HangUp);
                self.lost(now, "an earlier coordinator of the run still answers".to_owned(), outputs);
            }
            return;
        }
        match body {
            OrderBody::Goodbye(goodbye) => {
                outputs.push(AgentOutput::End(AgentEnd::Over(ExitCode::of_code(goodbye.exit_code))));
            }
            OrderBody::Welcome(welcome) => self.welcomed(now, order.incarnation, &welcome, outputs),
            _ if !self.is_welcomed() => {}
            OrderBody::StartWorker(start) => self.start(start, outputs),
            OrderBody::ToWorker(to) => {
                let link = self.workers.get(&WorkerId(to.worker)).and_then(|worker| worker.link);
                // A worker that is gone is told of by its end.
                outputs.extend(link.zip(to.order).map(|(link, order)| AgentOutput::Tell { link, order }));
            }
            OrderBody::KillWorkers(_) => {
                let kill = |id: &WorkerId| AgentOutput::Kill { worker: id.clone() };
                outputs.extend(self.workers.keys().map(kill));
            }
            OrderBody::KillWorker(kill) => {
                let worker = WorkerId(kill.worker);
                if self.workers.contains_key(&worker) {
                    outputs.push(AgentOutput::Kill { worker });
                }
            }
            OrderBody::Renewed(_) => {}
        }
    }

    fn welcomed(
        &mut self,
        now: Duration,
        incarnation: u64,
        welcome: &wire::Welcome,
        outputs: &mut Vec<AgentOutput>,
    ) {
        let Contact::Greeted { at, .. } = self.contact else { return };
        self.incarnation = incarnation;
        self.terms = messages::terms(welcome, FIRST_TERMS);
        self.contact = Contact::Welcomed;
        self.heard = at;
        for end in &mut self.ends {
            end.told = Some(now);
        }
        for worker in self.workers.values_mut() {
            // Who reported a hang may have been heard by nobody.
            worker.watch.forget_report();
        }
        // Steps that nobody has heard, and some that were heard: a step that is told twice does no harm. They are told now,
        // not before the hello, and this link may break before they are heard.
        for (told, step) in &mut self.steps {
            *told = now;
            let body = Some(AgentBody::FromWorker(step.clone()));
            outputs.push(AgentOutput::Send(wire::AgentMessage { incarnation, body }));
        }
        for body in std::mem::take(&mut self.untold) {
            outputs.push(AgentOutput::Send(self.message(body)));
        }
    }

    fn start(&mut self, start: wire::StartWorker, outputs: &mut Vec<AgentOutput>) {
        let (worker, index) = (WorkerId(start.worker), start.index);
        if self.workers.contains_key(&worker) {
            return;
        }
        let new = Worker { index, hello: None, link: None, ended: None, watch: Watch::default() };
        self.workers.insert(worker.clone(), new);
        outputs.push(AgentOutput::Start { worker, index });
    }

    fn worker_joined(&mut self, link: LinkId, hello: wire::WorkerMessage, outputs: &mut Vec<AgentOutput>) {
        let Some(wire::worker_message::Body::Hello(said)) = &hello.body else { return };
        let expected = self.workers.iter_mut().find(|(_, worker)| {
            worker.index == said.index && worker.hello.is_none() && worker.ended.is_none()
        });
        // Anybody else is a process that was not started here.
        if let Some((id, worker)) = expected {
            worker.hello = Some(said.clone());
            worker.link = Some(link);
            let from = wire::FromWorker { worker: id.0.clone(), message: Some(hello) };
            self.send(AgentBody::FromWorker(from), outputs);
        }
    }

    fn worker_said(
        &mut self,
        now: Duration,
        link: LinkId,
        message: wire::WorkerMessage,
        outputs: &mut Vec<AgentOutput>,
    ) {
        let Some(id) = self.worker_of(link) else { return };
        if let Some(wire::worker_message::Body::Failed(_)) = &message.body {
            let noted = Some(wire::worker_order::Body::Noted(wire::Noted {}));
            let order = wire::WorkerOrder { identity: message.identity.clone(), body: noted };
            outputs.push(AgentOutput::Tell { link, order });
        }
        let from = wire::FromWorker { worker: id.0.clone(), message: Some(message) };
        // A step that is kept follows the welcome of itself.
        let kept = self.keep_step(now, &from);
        if self.is_welcomed() || !kept {
            self.send(AgentBody::FromWorker(from), outputs);
        }
    }

    /// Keeps what tells a step; gives whether it does. Links keep their order: what was said before a renewal that was
    /// answered has been heard.
    fn keep_step(&mut self, now: Duration, from: &wire::FromWorker) -> bool {
        let body = from.message.as_ref().and_then(|message| message.body.as_ref());
        if !matches!(body, Some(wire::worker_message::Body::Progress(_))) {
            return false;
        }
        let heard = self.heard;
        while self.steps.front().is_some_and(|(told, _)| *told < heard) || self.steps.len() == STEPS_KEPT {
            self.steps.pop_front();
        }
        self.steps.push_back((now, from.clone()));
        true
    }

    /// Tells an end once everything the worker had said was told, or will be told with the next hello.
    fn settle(&mut self, now: Duration, id: &WorkerId, outputs: &mut Vec<AgentOutput>) {
        let ended = self.workers.get_mut(id).and_then(|worker| worker.ended.take());
        let Some((exited, _)) = ended else { return };
        self.workers.remove(id);
        let told = self.is_welcomed().then_some(now);
        self.ends.push(End { exited: exited.clone(), told });
        self.send(AgentBody::WorkerExited(exited), outputs);
    }

    fn tick(&mut self, now: Duration, readings: BTreeMap<WorkerId, Reading>, outputs: &mut Vec<AgentOutput>) {
        let gap = overslept(self.last_tick, now, self.terms.lease);
        self.last_tick = now;
        let late: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.ended.as_ref().is_some_and(|(_, until)| now >= *until))
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            self.settle(now, &id, outputs);
        }
        for (id, reading) in readings {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.watch.read(reading);
            }
        }
        for worker in self.workers.values_mut() {
            worker.watch.prolong(gap);
        }
        match &mut self.contact {
            Contact::Welcomed => self.renew(now, outputs),
            Contact::Apart { since, .. } => {
                *since += gap;
            }
            Contact::Greeted { since, at, .. } => {
                *since += gap;
                *at += gap;
                if now.saturating_sub(*at) > self.terms.lease {
                    outputs.push(AgentOutput::HangUp);
                    self.lost(now, "it does not answer".to_owned(), outputs);
                }
            }
        }
    }

    fn renew(&mut self, now: Duration, outputs: &mut Vec<AgentOutput>) {
        let lease = self.terms.lease;
        // What was told a lease ago has been heard: the link has been answering since.
        self.ends.retain(|end| end.told.is_none_or(|told| now.saturating_sub(told) <= lease));
        let stamps = self
            .workers
            .iter()
            .filter_map(|(id, worker)| Some(messages::stamp(now, id, worker.watch.doing()?)))
            .collect();
        self.unanswered.push_back(now);
        outputs.push(AgentOutput::Send(self.message(AgentBody::Renewal(wire::Renewal { stamps }))));
        let mut hung = Vec::new();
        for (id, worker) in &mut self.workers {
            if worker.link.is_some()
                && worker.ended.is_none()
                && let Some(hang) = worker.watch.judge(now, &self.terms)
            {
                hung.push((id.clone(), messages::hung(now, id, &hang)));
            }
        }
        for (worker, hung) in hung {
            let message = self.message(AgentBody::WorkerHung(hung));
            outputs.push(AgentOutput::SendWithLog { worker, message });
        }
    }

    fn message(&self, body: AgentBody) -> wire::AgentMessage {
        wire::AgentMessage { incarnation: self.incarnation, body: Some(body) }
    }

    /// Nothing goes out before the welcome. What comes before the hello is in it where it matters: workers, and their ends;
    /// what comes after it follows the welcome.
    fn send(&mut self, body: AgentBody, outputs: &mut Vec<AgentOutput>) {
        match self.contact {
            Contact::Welcomed => outputs.push(AgentOutput::Send(self.message(body))),
            Contact::Greeted { .. } => self.untold.push(body),
            Contact::Apart { .. } => {}
        }
    }
}
