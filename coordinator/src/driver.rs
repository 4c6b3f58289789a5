//! The event loop of a coordinator: it selects an input, passes it to the engine and executes the commands. Stop signals come first.

mod committer;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longtake_shared::hint::Failure;
use longtake_shared::ids::{AgentId, Epoch, Generation, Rank, Step, WorkerId};
use longtake_shared::protocol::{
    AgentCommand, AgentHello, AgentOrder, Detection, GenerationInputs, Identity, Order, SavedStage, Terms,
    VideoDetections, WorkerOrder,
};
use longtake_shared::task::{TaskGroup, TaskKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use crate::journal::Journal;
use crate::run::command::Command;
use crate::run::event::{Event, ReportMade};
use crate::run::record::Record;
use crate::run::{Orphan, RunEngine, Settings};
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
    /// The detections by name of the video.
    pub detections: BTreeMap<String, Vec<Detection>>,
}

/// The result of a validation.
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

/// Computes the report of a validation; called on a thread that may block.
pub type Reporter = Box<dyn FnMut(Validation) -> Result<Report, Failure> + Send>;

/// An input of the loop.
#[derive(Debug)]
pub enum Input {
    /// An event for the engine.
    Event(Event),
    /// An agent has opened its link.
    AgentAttached {
        /// Its first message.
        hello: AgentHello,
        /// The channel for its orders.
        orders: mpsc::UnboundedSender<AgentOrder>,
    },
    /// An agent's link has closed.
    AgentDetached {
        /// The agent.
        agent: AgentId,
    },
    /// All detections of one video.
    Detections {
        /// The worker that sends them.
        worker: WorkerId,
        /// The generation and rank they belong to.
        identity: Identity,
        /// The detections.
        found: VideoDetections,
    },
    /// A checkpoint is in the chain.
    Sealed {
        /// The stage that was running.
        stage: SavedStage,
        /// Steps of that stage done.
        step: Step,
        /// Its position and manifest.
        sealed: Sealed,
    },
    /// The newest intact checkpoint was found.
    Whole(Whole),
    /// A request for the status of the run.
    Status(oneshot::Sender<StatusReport>),
}

/// Capacity of the input queue.
pub const INPUT_QUEUE: usize = 1024;

/// Ticks in a lease: an expired lease is detected at most a fifth of a lease late.
const TICKS_PER_LEASE: u32 = 5;

/// The loop with its inputs.
pub struct Driver {
    core: Core,
    started: Instant,
    inputs: mpsc::Receiver<Input>,
}

/// The part of a driver that does not wait: inputs and the time go in, orders and requests go out through channels.
pub struct Core {
    engine: RunEngine,
    journal: Journal,
    inputs: Arc<GenerationInputs>,
    updates: mpsc::UnboundedSender<RunUpdate>,
    chain: mpsc::UnboundedSender<ChainRequest>,
    validations: mpsc::UnboundedSender<Validation>,
    agents: BTreeMap<AgentId, mpsc::UnboundedSender<AgentOrder>>,
    detections: BTreeMap<(Generation, Step), BTreeMap<String, Vec<Detection>>>,
}

/// The output channels of a core.
#[derive(Debug, Clone)]
pub struct Outlets {
    /// The observers of the run.
    pub updates: mpsc::UnboundedSender<RunUpdate>,
    /// The committer.
    pub chain: mpsc::UnboundedSender<ChainRequest>,
    /// The reporter.
    pub validations: mpsc::UnboundedSender<Validation>,
}

/// The parts of a driver.
pub struct DriverParts {
    /// The settings of the run.
    pub settings: Settings,
    /// This coordinator start, and the newest generation of any earlier one.
    pub fence: Fence,
    /// A generation of an earlier coordinator that may still run.
    pub orphan: Option<Orphan>,
    /// The journal.
    pub journal: Journal,
    /// What every member of a generation receives alike.
    pub generation_inputs: GenerationInputs,
    /// The input queue of the loop.
    pub inputs: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    /// The observers of the run.
    pub updates: mpsc::UnboundedSender<RunUpdate>,
    /// The committer.
    pub committer: Box<dyn Committer>,
    /// The reporter.
    pub reporter: Reporter,
}

impl Driver {
    /// Creates a driver; its committer and reporter run as tasks of the group.
    pub fn new(parts: DriverParts, tasks: &mut TaskGroup) -> Self {
        let DriverParts {
            settings,
            fence,
            orphan,
            journal,
            generation_inputs,
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
        let core = Core::new(engine, journal, generation_inputs, Outlets { updates, chain, validations });
        Self { core, started: Instant::now(), inputs }
    }

    /// Runs until the run ends.
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
                    // The committer's task holds a sender until the loop ends.
                    None => Input::Event(Event::Broken { message: "all sources of events have ended".to_owned() }),
                },
            };
            if let Some(outcome) = self.core.take(self.started.elapsed(), input) {
                return outcome;
            }
        }
    }
}

impl Core {
    /// Creates a core with these outputs.
    pub fn new(engine: RunEngine, journal: Journal, inputs: GenerationInputs, outlets: Outlets) -> Self {
        let Outlets { updates, chain, validations } = outlets;
        let (agents, detections) = (BTreeMap::new(), BTreeMap::new());
        let inputs = Arc::new(inputs);
        Self { engine, journal, inputs, updates, chain, validations, agents, detections }
    }

    /// The engine.
    pub fn engine(&self) -> &RunEngine {
        &self.engine
    }

    /// Handles an input at `now`, measured from the coordinator's start. Returns the outcome with the last input of the run.
    pub fn take(&mut self, now: Duration, input: Input) -> Option<Outcome> {
        let event = match input {
            Input::Event(event) => event,
            Input::AgentAttached { hello, orders } => {
                let AgentHello { agent, host, slots, held, ended, .. } = hello;
                self.attach(&agent, &orders);
                self.agents.insert(agent.clone(), orders);
                Event::AgentConnected { agent, host, slots, held, ended }
            }
            Input::AgentDetached { agent } => {
                self.agents.remove(&agent);
                Event::AgentDisconnected { agent }
            }
            Input::Detections { worker, identity, found } => {
                if self.engine.is_current(&worker, &identity) {
                    let VideoDetections { step, video, detections } = found;
                    let key = (identity.generation, step);
                    self.detections.entry(key).or_default().insert(video, detections);
                }
                return None;
            }
            Input::Sealed { stage, step, sealed: Sealed { sequence, manifest_json } } => {
                self.resume_from(Some(manifest_json));
                Event::Committed { stage, step, sequence }
            }
            Input::Whole(Whole { found, passed_over }) => {
                self.resume_from(found.as_ref().map(|found| found.manifest.to_string()));
                let found = found.map(|found| (found.stage, found.step));
                Event::CheckpointFound { found, passed_over }
            }
            Input::Status(answer) => {
                // The caller may have disconnected.
                let _ = answer.send(status::report(&self.engine, now));
                return None;
            }
        };
        self.happen(now, event)
    }

    /// Generations that form from now on resume from this manifest.
    fn resume_from(&mut self, manifest_json: Option<String>) {
        Arc::make_mut(&mut self.inputs).resume_json = manifest_json;
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
                        // The remaining commands announce what is not durable.
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
                self.order(&agent, AgentCommand::StartWorker { worker, index: index as u32 });
            }
            Command::Tell { generation, workers, order } => self.tell(generation, workers, &order),
            Command::CommitCheckpoint(request) => {
                // Its task group reports a committer that has ended.
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
                self.order(&agent, AgentCommand::KillWorker { worker });
            }
            Command::KillWorkers => self.order_all(&AgentCommand::KillWorkers),
            Command::Finish(outcome) => {
                self.order_all(&AgentCommand::Goodbye { exit: outcome.exit_code() });
                return Carried::Finished(outcome);
            }
        }
        Carried::Out
    }

    /// A generation that is not durable must not be announced; the chain contains the facts of the other records as well.
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

    /// Sends an update to the observers. A slow observer misses nothing and delays nothing: its queue is bounded by the number of
    /// steps of the run.
    fn announce(&self, update: RunUpdate) {
        if self.updates.send(update).is_err() {
            tracing::trace!("no observer is left");
        }
    }

    fn attach(&self, agent: &AgentId, orders: &mpsc::UnboundedSender<AgentOrder>) {
        let settings = self.engine.settings();
        let terms = Terms {
            lease: settings.lease,
            grace: settings.coordinator_grace,
            phase_deadline: settings.phase_deadline,
        };
        tracing::debug!(%agent, "an agent has connected");
        let _ = orders.send(self.agent_order(AgentCommand::Welcome(terms)));
    }

    fn tell(&self, generation: Generation, workers: Vec<WorkerId>, order: &Order) {
        let state = self.engine.state();
        for worker in workers {
            let Some(known) = state.roster.workers.get(&worker) else { continue };
            let rank = state.phase.team().and_then(|team| team.rank(&worker)).unwrap_or(Rank(0));
            let run = self.engine.settings().run.clone();
            let identity = Identity { run, incarnation: state.incarnation, generation, rank };
            let inputs = matches!(order, Order::Form(_)).then(|| Arc::clone(&self.inputs));
            let order = Box::new(WorkerOrder { identity, order: order.clone(), inputs });
            self.order(&known.agent, AgentCommand::ToWorker { worker, order });
        }
    }

    fn order(&self, agent: &AgentId, command: AgentCommand) {
        if let Some(orders) = self.agents.get(agent) {
            // The lease detects an agent whose channel is closed.
            let _ = orders.send(self.agent_order(command));
        }
    }

    fn order_all(&self, command: &AgentCommand) {
        for agent in self.agents.keys() {
            self.order(agent, command.clone());
        }
    }

    fn agent_order(&self, command: AgentCommand) -> AgentOrder {
        AgentOrder { incarnation: self.engine.state().incarnation, command }
    }
}

/// The result of a command.
enum Carried {
    /// Executed, or started.
    Out,
    /// The run is over.
    Finished(Outcome),
    /// A record could not be made durable.
    NotDurable(String),
}

/// The loop has ended, and with it the run.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator's loop has ended")]
struct LoopGone;

/// Computes one report after the other, until the loop ends.
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
