//! The one loop of a coordinator: select an event, hand it to the engine, carry out its commands. Stop signal first.

mod committer;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longtake_shared::hint::Failure;
use longtake_shared::ids::{Epoch, Generation, Rank, Step, WorkerId};
use longtake_shared::protocol::{Detection, Stage, wire};
use longtake_shared::task::{TaskGroup, TaskKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use wire::agent_order::Body as AgentOrderBody;

use crate::journal::{Journal, Record};
use crate::run::command::{Command, Order};
use crate::run::event::{Event, HeldWorker, Identity, ReportMade, WorkerEnd};
use crate::run::membership::AgentId;
use crate::run::{Orphan, RunEngine, Settings};
use crate::server::convert::{self, FormContext};
use crate::signals::Signals;
use crate::status::{self, StatusReport};
use crate::updates::{Outcome, RunUpdate};
use committer::keep_chain;

pub use committer::{ChainRequest, Committer, Fence, Resume, Sealed, Whole};

/// All detections of a validation.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    /// Steps trained before it.
    pub step: Step,
    /// By the name of the video.
    pub detections: BTreeMap<String, Vec<Detection>>,
}

/// What a validation has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Epochs trained before it.
    pub epoch: Epoch,
    /// Mean AP over classes, then over tIoU thresholds.
    pub average_map: f64,
    /// No earlier validation was better.
    pub best: bool,
    /// The whole report, as `longtake_shared::metrics` serialises it.
    pub report: serde_json::Value,
}

/// Turns a validation into its report; called on a thread where it may take its time.
pub type Reporter = Box<dyn FnMut(Validation) -> Result<Report, Failure> + Send>;

/// What comes into the loop.
#[derive(Debug)]
pub enum Input {
    /// Something for the engine.
    Event(Event),
    /// An agent has opened its link.
    AgentAttached {
        /// Which.
        agent: AgentId,
        /// Where it runs.
        host: String,
        /// Workers it can start.
        slots: usize,
        /// Workers that it holds already.
        held: Vec<HeldWorker>,
        /// Workers that have ended since it had a coordinator.
        ended: Vec<WorkerEnd>,
        /// Where its orders go.
        orders: mpsc::UnboundedSender<wire::AgentOrder>,
    },
    /// An agent's link is over.
    AgentDetached {
        /// Which.
        agent: AgentId,
    },
    /// The detections of one video, complete.
    Detections {
        /// Who found them.
        worker: WorkerId,
        /// What it speaks for.
        identity: Identity,
        /// Steps trained before the validation.
        step: Step,
        /// The video's name.
        video: String,
        /// What was found.
        detections: Vec<Detection>,
    },
    /// A checkpoint is in the chain.
    Sealed {
        /// The stage that was running.
        stage: Stage,
        /// Steps of it done.
        step: Step,
        /// The rest.
        sealed: Sealed,
    },
    /// Which checkpoint is whole.
    Whole(Whole),
    /// Somebody asks how the run stands.
    Status(oneshot::Sender<StatusReport>),
}

/// Messages that wait for the loop.
pub const INPUT_QUEUE: usize = 1024;

/// Ticks in a lease: an expired lease is found at most a fifth of a lease late.
const TICKS_PER_LEASE: u32 = 5;

/// The loop and what it waits for.
pub struct Driver {
    core: Core,
    started: Instant,
    inputs: mpsc::Receiver<Input>,
}

/// Everything of a driver that does not wait: inputs and the time go in, orders and requests go out through channels.
pub struct Core {
    engine: RunEngine,
    journal: Journal,
    context: FormContext,
    updates: mpsc::UnboundedSender<RunUpdate>,
    chain: mpsc::UnboundedSender<ChainRequest>,
    validations: mpsc::UnboundedSender<Validation>,
    agents: BTreeMap<AgentId, mpsc::UnboundedSender<wire::AgentOrder>>,
    detections: BTreeMap<(Generation, Step), BTreeMap<String, Vec<Detection>>>,
}

/// Where a core's words go.
#[derive(Debug, Clone)]
pub struct Outlets {
    /// Who watches.
    pub updates: mpsc::UnboundedSender<RunUpdate>,
    /// What makes checkpoints real.
    pub chain: mpsc::UnboundedSender<ChainRequest>,
    /// What makes reports.
    pub validations: mpsc::UnboundedSender<Validation>,
}

/// What a driver is made of.
pub struct DriverParts {
    /// What the run is told.
    pub settings: Settings,
    /// This start of the coordinator, and the newest generation of any earlier one.
    pub fence: Fence,
    /// A generation of an earlier coordinator that may live on.
    pub orphan: Option<Orphan>,
    /// Where durable facts go.
    pub journal: Journal,
    /// What workers are given beside their place.
    pub context: FormContext,
    /// Where everything comes in.
    pub inputs: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    /// Who watches.
    pub updates: mpsc::UnboundedSender<RunUpdate>,
    /// What makes checkpoints real.
    pub committer: Box<dyn Committer>,
    /// What makes reports.
    pub reporter: Reporter,
}

impl Driver {
    /// A driver whose committer and reporter run as tasks of the group.
    pub fn new(parts: DriverParts, tasks: &mut TaskGroup) -> Self {
        let DriverParts {
            settings,
            fence,
            orphan,
            journal,
            context,
            inputs: (sender, inputs),
            updates,
            committer,
            reporter,
        } = parts;
        let (chain, requests) = mpsc::unbounded_channel();
        let (validations, done) = mpsc::unbounded_channel();
        tasks.spawn(TaskKind::Committer, keep_chain(committer, requests, sender.clone()));
        tasks.spawn(TaskKind::Reporter, report_all(reporter, done, sender));
        let engine = match orphan {
            Some(orphan) => RunEngine::adopting(settings, fence.incarnation, orphan, Duration::ZERO),
            None => RunEngine::new(settings, fence.incarnation, fence.generation, Duration::ZERO),
        };
        let core = Core::new(engine, journal, context, Outlets { updates, chain, validations });
        Self { core, started: Instant::now(), inputs }
    }

    /// Runs to the end of the run.
    pub async fn run(mut self, signals: &mut Signals, tasks: &mut TaskGroup) -> Outcome {
        let settings = self.core.engine().settings();
        let mut ticks = tokio::time::interval(settings.lease / TICKS_PER_LEASE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let needed = settings.workers;
        self.core.announce(RunUpdate::Gathering { present: 0, needed });
        loop {
            let input = tokio::select! {
                biased;
                source = signals.next() => Input::Event(Event::Stop(source)),
                failure = tasks.next_failure() => Input::Event(Event::Broken { message: failure.to_string() }),
                _ = ticks.tick() => Input::Event(Event::Tick),
                input = self.inputs.recv() => match input {
                    Some(input) => input,
                    // The committer's task holds a sender as long as the loop lives.
                    None => Input::Event(Event::Broken { message: "every source of events is gone".to_owned() }),
                },
            };
            if let Some(outcome) = self.core.take(self.started.elapsed(), input) {
                return outcome;
            }
        }
    }
}

impl Core {
    /// A core whose words go to these outlets.
    pub fn new(engine: RunEngine, journal: Journal, context: FormContext, outlets: Outlets) -> Self {
        let Outlets { updates, chain, validations } = outlets;
        let (agents, detections) = (BTreeMap::new(), BTreeMap::new());
        Self { engine, journal, context, updates, chain, validations, agents, detections }
    }

    /// What the run knows.
    pub fn engine(&self) -> &RunEngine {
        &self.engine
    }

    /// What is done about an input that comes now, `now` after the coordinator's start. Gives the outcome with the last one.
    pub fn take(&mut self, now: Duration, input: Input) -> Option<Outcome> {
        let event = match input {
            Input::Event(event) => event,
            Input::AgentAttached { agent, host, slots, held, ended, orders } => {
                self.attach(&agent, &orders);
                self.agents.insert(agent.clone(), orders);
                Event::AgentConnected { agent, host, slots, held, ended }
            }
            Input::AgentDetached { agent } => {
                self.agents.remove(&agent);
                Event::AgentDisconnected { agent }
            }
            Input::Detections { worker, identity, step, video, detections } => {
                if self.engine.is_current(&worker, &identity) {
                    let key = (identity.generation, step);
                    self.detections.entry(key).or_default().insert(video, detections);
                }
                return None;
            }
            Input::Sealed { stage, step, sealed: Sealed { sequence, manifest_json } } => {
                self.context.resume_json = Some(manifest_json);
                Event::Committed { stage, step, sequence }
            }
            Input::Whole(Whole { found, passed_over }) => {
                self.context.resume_json = found.as_ref().map(|found| found.manifest.to_string());
                let found = found.map(|found| (found.stage, found.step));
                Event::CheckpointFound { found, passed_over }
            }
            Input::Status(answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(status::report(&self.engine, now));
                return None;
            }
        };
        self.happen(now, event)
    }

    fn happen(&mut self, now: Duration, event: Event) -> Option<Outcome> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let commands = self.engine.handle(now, event);
            for command in commands {
                match self.carry_out(command) {
                    Carried::Out => {}
                    Carried::Finished(outcome) => return Some(outcome),
                    Carried::NotDurable(message) => {
                        // What follows must not be announced.
                        events.push(Event::Broken { message });
                        break;
                    }
                }
            }
        }
        None
    }

    fn carry_out(&mut self, command: Command) -> Carried {
        match command {
            Command::Journal(record) => return self.record(&record),
            Command::Announce(update) => self.announce(update),
            Command::StartWorker { agent, worker, index } => {
                let start = wire::StartWorker { worker: worker.0, index: index as u32 };
                self.order(&agent, AgentOrderBody::StartWorker(start));
            }
            Command::Tell { generation, workers, order } => self.tell(generation, &workers, &order),
            Command::CommitCheckpoint(request) => {
                // A committer that is gone is told by its group.
                let _ = self.chain.send(ChainRequest::Commit(request));
            }
            Command::FindCheckpoint => {
                let _ = self.chain.send(ChainRequest::FindWhole);
            }
            Command::ComputeReport { generation, step } => {
                let detections = self.detections.remove(&(generation, step)).unwrap_or_default();
                self.detections.clear();
                let _ = self.validations.send(Validation { step, detections });
            }
            Command::KillWorker { agent, worker } => {
                let kill = wire::KillWorker { worker: worker.0 };
                self.order(&agent, AgentOrderBody::KillWorker(kill));
            }
            Command::KillWorkers => {
                let agents: Vec<AgentId> = self.agents.keys().cloned().collect();
                for agent in agents {
                    self.order(&agent, AgentOrderBody::KillWorkers(wire::KillWorkers {}));
                }
            }
            Command::Finish(outcome) => {
                let agents: Vec<AgentId> = self.agents.keys().cloned().collect();
                let goodbye = wire::Goodbye { exit_code: outcome.exit_code().code().into() };
                for agent in agents {
                    self.order(&agent, AgentOrderBody::Goodbye(goodbye));
                }
                return Carried::Finished(outcome);
            }
        }
        Carried::Out
    }

    /// A generation that is not durable must not be announced; the other records are facts that the chain holds as well.
    fn record(&mut self, record: &Record) -> Carried {
        match self.journal.append(record) {
            Ok(()) => Carried::Out,
            Err(error) => {
                let message = Failure::from(error).message;
                if matches!(record, Record::Generation { .. }) {
                    return Carried::NotDurable(message);
                }
                tracing::error!(message, "a record is not durable");
                Carried::Out
            }
        }
    }

    /// A watcher that is slow misses nothing and holds nothing up: what waits for it is bounded by the steps of the run.
    fn announce(&self, update: RunUpdate) {
        if self.updates.send(update).is_err() {
            tracing::trace!("nobody watches any more");
        }
    }

    fn attach(&self, agent: &AgentId, orders: &mpsc::UnboundedSender<wire::AgentOrder>) {
        let settings = self.engine.settings();
        let welcome = wire::Welcome {
            lease_seconds: settings.lease.as_secs_f64(),
            coordinator_grace_seconds: settings.coordinator_grace.as_secs_f64(),
            phase_deadline_seconds: settings.phase_deadline.as_secs_f64(),
        };
        tracing::debug!(%agent, "an agent has come");
        let _ = orders.send(self.agent_order(AgentOrderBody::Welcome(welcome)));
    }

    fn tell(&self, generation: Generation, workers: &[WorkerId], order: &Order) {
        let state = self.engine.state();
        let body = convert::order(order, &self.context);
        for worker in workers {
            let Some(known) = state.workers.get(worker) else { continue };
            let rank = state.phase.team().and_then(|team| team.rank(worker)).unwrap_or(Rank(0));
            let identity = wire::Identity {
                run: self.engine.settings().run.0.clone(),
                incarnation: state.incarnation.0,
                generation: generation.0,
                rank: rank.0,
            };
            let order = wire::WorkerOrder { identity: Some(identity), body: Some(body.clone()) };
            let to_worker = wire::ToWorker { worker: worker.0.clone(), order: Some(order) };
            self.order(&known.agent, AgentOrderBody::ToWorker(to_worker));
        }
    }

    fn order(&self, agent: &AgentId, body: AgentOrderBody) {
        if let Some(orders) = self.agents.get(agent) {
            // An agent that is gone is found by its lease.
            let _ = orders.send(self.agent_order(body));
        }
    }

    fn agent_order(&self, body: AgentOrderBody) -> wire::AgentOrder {
        wire::AgentOrder { incarnation: self.engine.state().incarnation.0, body: Some(body) }
    }
}

/// What became of a command.
enum Carried {
    /// Done, or under way.
    Out,
    /// It was the last one.
    Finished(Outcome),
    /// It should have been durable and is not.
    NotDurable(String),
}

/// The loop is gone, and with it the run.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator's loop is gone")]
struct LoopGone;

/// One report after the other, until the loop has gone.
async fn report_all(
    reporter: Reporter,
    mut validations: mpsc::UnboundedReceiver<Validation>,
    inputs: mpsc::Sender<Input>,
) -> Result<(), LoopGone> {
    let reporter = Arc::new(Mutex::new(reporter));
    while let Some(validation) = validations.recv().await {
        let step = validation.step;
        let reporter = Arc::clone(&reporter);
        let report = tokio::task::spawn_blocking(move || {
            let mut reporter = reporter.lock().unwrap_or_else(PoisonError::into_inner);
            (*reporter)(validation)
        });
        let event = match report.await {
            Ok(Ok(Report { epoch, average_map, best, report })) => {
                Event::ReportMade(ReportMade { step, epoch, average_map, best, report })
            }
            Ok(Err(failure)) => Event::ReportFailed { message: failure.message },
            Err(_) => Event::ReportFailed { message: "its computation panicked".to_owned() },
        };
        inputs.send(Input::Event(event)).await.map_err(|_| LoopGone)?;
    }
    Ok(())
}
