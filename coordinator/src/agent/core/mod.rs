//! The decisions of an agent as a pure state machine: (now, input) -> outputs. It does no I/O and reads no clock; [`crate::agent`] executes the outputs.
//!
//! ```text
//!   Apart --Reached--> Greeted --Welcome--> Welcomed
//!     ^                   |                    |
//!     +---- link lost, no answer, own lease expired (OnLoss::Reconnect; others end) ----+
//! ```
//!
//! **Invariant:** outside `Welcomed` the agent starts no worker and forwards no message. The workers it holds continue their
//! generation until the grace is over. The end of a worker is kept until a coordinator has received it.

mod interface;
mod messages;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use longtake_shared::ids::{Incarnation, RunId, WorkerId};
use longtake_shared::objects::RetryPolicy;
use longtake_shared::protocol::{
    AgentCommand, AgentMessage, AgentOrder, AgentReport, Order, Terms, WorkerEnd, WorkerHello, WorkerMessage,
    WorkerOrder, WorkerReport,
};

pub use interface::{AgentEnd, AgentIdentity, AgentInput, AgentOutput, LinkId, OnLoss, Reading};

use crate::run::membership::overslept;

pub(crate) use watch::{Expected, Watch};

/// How long the agent waits for the last messages of an ended worker before it reports the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Ticks in a lease, unless they would be further apart than [`LOOK`]. A tick renews the lease and checks the workers.
const TICKS_PER_LEASE: u32 = 5;

/// The longest time between two ticks: a hang is noticed at most this much late.
const LOOK: Duration = Duration::from_millis(200);

/// Progress messages kept while the coordinator is away: a grace of one minute at 100 steps per second, with reserve.
const STEPS_KEPT: usize = 8192;

/// Pauses between two attempts to connect. A coordinator that has come back is found within the longest.
const CALLS: RetryPolicy = RetryPolicy {
    attempts: u32::MAX,
    first: Duration::from_millis(20),
    factor: 2.0,
    longest: Duration::from_millis(200),
    // The lease bounds an attempt that is not answered.
    patience: Duration::MAX,
};

/// State of the contact with the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    /// The agent tries to connect.
    Apart {
        /// Since when the coordinator is lost.
        since: Duration,
        /// Failed attempts.
        failed: u32,
    },
    /// The hello is sent.
    Greeted {
        /// See `Apart`.
        since: Duration,
        /// See `Apart`.
        failed: u32,
        /// Time of the hello.
        at: Duration,
    },
    /// The agent belongs to the run.
    Welcomed,
}

/// A worker whose end is not reported yet.
#[derive(Debug)]
struct Worker {
    index: u32,
    /// Its first message.
    hello: Option<WorkerHello>,
    link: Option<LinkId>,
    /// Its end, and until when the agent waits for its last messages.
    ended: Option<(WorkerEnd, Duration)>,
    watch: Watch,
}

/// The end of a worker.
#[derive(Debug)]
struct End {
    exited: WorkerEnd,
    /// When it was sent. A message sent shortly before a link broke may be lost.
    told: Option<Duration>,
}

/// The decision core of an agent.
#[derive(Debug)]
pub struct AgentCore {
    identity: AgentIdentity,
    run: RunId,
    /// The newest known incarnation; orders of older ones are dropped.
    incarnation: Incarnation,
    terms: Terms,
    contact: Contact,
    /// Time at which the newest message was sent that the coordinator has certainly received.
    heard: Duration,
    /// Times of the renewals that are not answered yet.
    unanswered: VecDeque<Duration>,
    workers: BTreeMap<WorkerId, Worker>,
    ends: Vec<End>,
    /// Reports made after the hello and before the welcome.
    untold: Vec<AgentReport>,
    /// Progress messages that may be lost, with the time at which they were sent.
    steps: VecDeque<(Duration, WorkerId, WorkerMessage)>,
    last_tick: Duration,
}

impl AgentCore {
    /// A new agent and its first outputs.
    pub fn new(identity: AgentIdentity, now: Duration) -> (Self, Vec<AgentOutput>) {
        let core = Self {
            identity,
            run: RunId(String::new()),
            incarnation: Incarnation(0),
            terms: Terms::INITIAL,
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

    /// Time between two [`AgentInput::Tick`].
    pub fn tick_period(&self) -> Duration {
        (self.terms.lease / TICKS_PER_LEASE).min(LOOK)
    }

    /// Whether the agent belongs to the run, as far as it knows.
    pub fn is_welcomed(&self) -> bool {
        self.contact == Contact::Welcomed
    }

    /// Whether the end of this worker is still to be reported.
    pub fn holds(&self, worker: &WorkerId) -> bool {
        self.workers.contains_key(worker)
    }

    /// The worker of a link.
    pub fn worker_of(&self, link: LinkId) -> Option<&WorkerId> {
        self.workers.iter().find(|(_, worker)| worker.link == Some(link)).map(|(id, _)| id)
    }

    /// The time limits of the run.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Handles an input and returns the actions to execute, in order.
    pub fn handle(&mut self, now: Duration, input: AgentInput) -> Vec<AgentOutput> {
        let mut outputs = Vec::new();
        if let AgentInput::Order(AgentOrder { command: AgentCommand::Renewed, .. }) = &input {
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
                self.send(AgentReport::StartFailed { worker, message }, outputs);
            }
            AgentInput::Ended { worker, cause, log, last } => {
                if let Some(known) = self.workers.get_mut(&worker) {
                    let last = last.map(|record| messages::activity(now, record));
                    let exited = WorkerEnd { worker: worker.clone(), cause, log, last };
                    known.ended = Some((exited, now + LAST_WORDS));
                    if known.link.is_none() {
                        self.settle(now, &worker, outputs);
                    }
                }
            }
            AgentInput::Tick { readings } => self.tick(now, readings, outputs),
        }
    }

    /// Once the lease has expired by the agent's own clock, the coordinator may have declared it lost: the agent disconnects
    /// even if orders still arrive.
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
        outputs.push(AgentOutput::Send(self.message(hello)));
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
        // Always retry; attempts have no limit.
        let pause = CALLS.delay(failed, &self.identity.agent.0).filter(|_| failed > 0);
        outputs.push(AgentOutput::Call { after: pause.unwrap_or_default() });
    }

    fn order(&mut self, now: Duration, order: AgentOrder, outputs: &mut Vec<AgentOutput>) {
        let AgentOrder { incarnation, command } = order;
        if command == AgentCommand::Renewed {
            return;
        }
        if incarnation < self.incarnation {
            if matches!(command, AgentCommand::Welcome(_)) {
                outputs.push(AgentOutput::HangUp);
                self.lost(now, "an earlier coordinator of the run still answers".to_owned(), outputs);
            }
            return;
        }
        match command {
            AgentCommand::Goodbye { exit } => outputs.push(AgentOutput::End(AgentEnd::Over(exit))),
            AgentCommand::Welcome(terms) => self.welcomed(now, incarnation, terms, outputs),
            _ if !self.is_welcomed() => {}
            AgentCommand::StartWorker { worker, index } => self.start(worker, index, outputs),
            AgentCommand::ToWorker { worker, order } => {
                let link = self.workers.get(&worker).and_then(|worker| worker.link);
                // An order for an ended worker is dropped: its end is reported.
                outputs.extend(link.map(|link| AgentOutput::Tell { link, order }));
            }
            AgentCommand::KillWorkers => {
                let kill = |id: &WorkerId| AgentOutput::Kill { worker: id.clone() };
                outputs.extend(self.workers.keys().map(kill));
            }
            AgentCommand::KillWorker { worker } => {
                if self.workers.contains_key(&worker) {
                    outputs.push(AgentOutput::Kill { worker });
                }
            }
            AgentCommand::Renewed => {}
        }
    }

    fn welcomed(
        &mut self,
        now: Duration,
        incarnation: Incarnation,
        terms: Terms,
        outputs: &mut Vec<AgentOutput>,
    ) {
        let Contact::Greeted { at, .. } = self.contact else { return };
        self.incarnation = incarnation;
        self.terms = terms;
        self.contact = Contact::Welcomed;
        self.heard = at;
        for end in &mut self.ends {
            end.told = Some(now);
        }
        for worker in self.workers.values_mut() {
            // An earlier hang report may have been lost.
            worker.watch.forget_report();
        }
        // Some of these messages were received before: a repeated step does no harm. This link may break as well before they
        // are received, so they are kept with the new time.
        for (told, worker, message) in &mut self.steps {
            *told = now;
            let report = AgentReport::FromWorker { worker: worker.clone(), message: message.clone() };
            outputs.push(AgentOutput::Send(AgentMessage { incarnation, report }));
        }
        for report in std::mem::take(&mut self.untold) {
            outputs.push(AgentOutput::Send(self.message(report)));
        }
    }

    fn start(&mut self, worker: WorkerId, index: u32, outputs: &mut Vec<AgentOutput>) {
        if self.workers.contains_key(&worker) {
            return;
        }
        let new = Worker { index, hello: None, link: None, ended: None, watch: Watch::default() };
        self.workers.insert(worker.clone(), new);
        outputs.push(AgentOutput::Start { worker, index });
    }

    fn worker_joined(&mut self, link: LinkId, hello: WorkerHello, outputs: &mut Vec<AgentOutput>) {
        let expected = self.workers.iter_mut().find(|(_, worker)| {
            worker.index == hello.index && worker.hello.is_none() && worker.ended.is_none()
        });
        // Any other process was not started by this agent.
        if let Some((id, worker)) = expected {
            worker.hello = Some(hello.clone());
            worker.link = Some(link);
            let (worker, message) = (id.clone(), WorkerMessage::Hello(hello));
            self.send(AgentReport::FromWorker { worker, message }, outputs);
        }
    }

    fn worker_said(
        &mut self,
        now: Duration,
        link: LinkId,
        message: WorkerMessage,
        outputs: &mut Vec<AgentOutput>,
    ) {
        let Some(worker) = self.worker_of(link).cloned() else { return };
        if let WorkerMessage::Report { identity, report: WorkerReport::Failed { .. } } = &message {
            let order = WorkerOrder { identity: identity.clone(), order: Order::Noted, inputs: None };
            outputs.push(AgentOutput::Tell { link, order: Box::new(order) });
        }
        let kept = self.keep_step(now, &worker, &message);
        // While the agent is not welcomed, a kept step waits for the welcome.
        if self.is_welcomed() || !kept {
            self.send(AgentReport::FromWorker { worker, message }, outputs);
        }
    }

    /// Keeps a progress message; returns whether the message is one. Links preserve order: a message sent before an answered
    /// renewal has been received and need not be kept.
    fn keep_step(&mut self, now: Duration, worker: &WorkerId, message: &WorkerMessage) -> bool {
        if !matches!(message, WorkerMessage::Report { report: WorkerReport::Progress(_), .. }) {
            return false;
        }
        let heard = self.heard;
        while self.steps.front().is_some_and(|(told, ..)| *told < heard) || self.steps.len() == STEPS_KEPT {
            self.steps.pop_front();
        }
        self.steps.push_back((now, worker.clone(), message.clone()));
        true
    }

    /// Reports the end of a worker after all its messages, or with the next hello.
    fn settle(&mut self, now: Duration, id: &WorkerId, outputs: &mut Vec<AgentOutput>) {
        let ended = self.workers.get_mut(id).and_then(|worker| worker.ended.take());
        let Some((exited, _)) = ended else { return };
        self.workers.remove(id);
        let told = self.is_welcomed().then_some(now);
        self.ends.push(End { exited: exited.clone(), told });
        self.send(AgentReport::WorkerExited(exited), outputs);
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
        // A report sent a lease ago has been received, because the link has answered since.
        self.ends.retain(|end| end.told.is_none_or(|told| now.saturating_sub(told) <= lease));
        let doing = self
            .workers
            .iter()
            .filter_map(|(id, worker)| Some((id.clone(), messages::activity(now, worker.watch.current()?))))
            .collect();
        self.unanswered.push_back(now);
        outputs.push(AgentOutput::Send(self.message(AgentReport::Renewal { doing })));
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
            let message = self.message(hung);
            outputs.push(AgentOutput::SendWithLog { worker, message });
        }
    }

    fn message(&self, report: AgentReport) -> AgentMessage {
        AgentMessage { incarnation: self.incarnation, report }
    }

    /// Sends a report after the welcome. Before the hello, reports are dropped: the hello contains the workers and their ends.
    /// Reports between hello and welcome follow the welcome.
    fn send(&mut self, report: AgentReport, outputs: &mut Vec<AgentOutput>) {
        match self.contact {
            Contact::Welcomed => outputs.push(AgentOutput::Send(self.message(report))),
            Contact::Greeted { .. } => self.untold.push(report),
            Contact::Apart { .. } => {}
        }
    }
}
