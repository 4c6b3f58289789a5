//! Coordinators: the real core behind a modelled network; they crash, come back from their journal, and pause.

use std::path::PathBuf;
use std::time::Duration;

use longtake_coordinator::driver::{ChainRequest, Core, Input, Outlets, Resume, Sealed, Validation, Whole};
use longtake_coordinator::journal::{FILE_NAME, Journal};
use longtake_coordinator::run::RunEngine;
use longtake_coordinator::run::command::CommitRequest;
use longtake_coordinator::run::event::Event;
use longtake_coordinator::run::record::Record;
use longtake_coordinator::server::intake;
use longtake_coordinator::updates::{Outcome, RunUpdate};
use longtake_shared::ids::{Incarnation, Step};
use longtake_shared::protocol::{
    AgentCommand, AgentMessage, AgentOrder, AgentReport, GenerationInputs, wire,
};
use tokio::sync::mpsc;

use crate::bugs::Bug;
use crate::world::{Happening, World};

/// A coordinator's process.
pub(crate) struct Coordinator {
    pub(crate) core: Core,
    pub(crate) up: bool,
    /// Stopped until then: what comes meanwhile waits.
    pub(crate) paused_until: Duration,
    started: Duration,
    /// How far its clock has leapt.
    pub(crate) ahead: Duration,
    requests: mpsc::UnboundedReceiver<ChainRequest>,
    updates: mpsc::UnboundedReceiver<RunUpdate>,
    _validations: mpsc::UnboundedReceiver<Validation>,
    folder: PathBuf,
}

/// A run that gives up has lost three generations in a row before they took a step, which one fault cannot do.
const FEWEST_FAULTS: usize = 2;

const TICK: Duration = Duration::from_millis(200);

impl World {
    /// A coordinator comes up with the journal of the last one, whose lock it has taken over.
    pub(crate) fn start_coordinator(&mut self) {
        if self.is_over() {
            return;
        }
        let folder = self.folder.path().join(self.coordinators.len().to_string());
        std::fs::create_dir(&folder).unwrap();
        if let Some(last) = self.coordinators.last() {
            std::fs::copy(last.folder.join(FILE_NAME), folder.join(FILE_NAME)).unwrap();
        }
        let (mut journal, history) = Journal::open(&folder).unwrap();
        let incarnation = self.chain.fence();
        let generation = history.newest().1;
        self.judge.coordinates(incarnation, generation);
        journal.append(&Record::Started { incarnation, config_hash: String::new() }).unwrap();
        let mut settings = self.shape.settings();
        settings.started_from = self.chain.newest().map(|(_, entry)| (entry.stage, entry.step));
        let engine = match history.orphan() {
            Some(orphan) => RunEngine::adopting(settings, incarnation, orphan, Duration::ZERO),
            None => RunEngine::new(settings, incarnation, generation, Duration::ZERO),
        };
        let inputs = GenerationInputs {
            run_folder: "runs/simulated".into(),
            settings_json: "{}".into(),
            resume_json: self
                .chain
                .newest()
                .map(|(sequence, entry)| manifest(sequence, entry.step).to_string()),
        };
        let (updates, updates_of) = mpsc::unbounded_channel();
        let (chain, requests) = mpsc::unbounded_channel();
        let (validations, validations_of) = mpsc::unbounded_channel();
        let core = Core::new(engine, journal, inputs, Outlets { updates, chain, validations });
        let number = self.coordinators.len();
        self.coordinators.push(Coordinator {
            core,
            up: true,
            paused_until: Duration::ZERO,
            started: self.now(),
            ahead: Duration::ZERO,
            requests,
            updates: updates_of,
            _validations: validations_of,
            folder,
        });
        self.plan(TICK, Happening::CoordinatorTicks(number));
    }

    /// The coordinator that agents find.
    pub(crate) fn current(&self) -> Option<usize> {
        let newest = self.coordinators.len() - 1;
        let coordinator = &self.coordinators[newest];
        coordinator.up.then_some(newest)
    }

    pub(crate) fn coordinator_ticks(&mut self, number: usize) {
        let now = self.now();
        let coordinator = &self.coordinators[number];
        if !coordinator.up {
            return;
        }
        let pause = coordinator.paused_until.saturating_sub(now);
        if pause.is_zero() {
            self.coordinator_takes(number, Input::Event(Event::Tick));
            if self.dice.one_in(20) {
                // Workers wish for checkpoints themselves; here the operator does.
                self.coordinator_takes(number, Input::Event(Event::CheckpointWanted));
            }
            self.plan(TICK, Happening::CoordinatorTicks(number));
        } else {
            self.plan(pause, Happening::CoordinatorTicks(number));
        }
    }

    pub(crate) fn coordinator_takes(&mut self, number: usize, input: Input) {
        for input in self.altered_inputs(number, input) {
            self.coordinator_handles(number, input);
        }
    }

    fn coordinator_handles(&mut self, number: usize, input: Input) {
        let now = self.now();
        let coordinator = &mut self.coordinators[number];
        if !coordinator.up {
            return;
        }
        let clock = now.saturating_sub(coordinator.started) + coordinator.ahead;
        let outcome = coordinator.core.take(clock, input);
        while let Ok(update) = coordinator.updates.try_recv() {
            drop(update);
        }
        let mut requests = Vec::new();
        while let Ok(request) = coordinator.requests.try_recv() {
            requests.push(request);
        }
        for request in requests {
            let delay = self.store_delay;
            let sealed =
                self.has(Bug::CommitBeforeDurable).then(|| self.sealed_too_early(&request)).flatten();
            self.plan(delay, Happening::StoreAnswers { coordinator: number, request: Box::new(request) });
            if let Some(sealed) = sealed {
                self.coordinator_takes(number, sealed);
            }
        }
        self.send_orders(number);
        if let Some(outcome) = outcome {
            self.ends(number, outcome);
        }
    }

    /// No model of a worker trains to the end; one that has been replaced ends for itself.
    fn ends(&mut self, number: usize, outcome: Outcome) {
        self.coordinators[number].up = false;
        if self.coordinators.len() - 1 > number {
            return;
        }
        match &outcome {
            Outcome::Failed { cause, never_restart, .. } => {
                assert!(*never_restart, "the run has failed: {cause}");
                assert!(
                    self.struck >= FEWEST_FAULTS,
                    "the run gave up after {} faults: {cause}",
                    self.struck
                );
            }
            Outcome::Preempted { .. } => assert!(self.asked_to_stop, "nobody has asked the run to stop"),
            Outcome::Done => panic!("a run without an end is done"),
        }
        self.outcome = Some(outcome);
    }

    pub(crate) fn coordinator_hears(&mut self, link: usize, message: AgentMessage) {
        let (number, agent) = (self.links[link].coordinator, self.links[link].agent.clone());
        let now = self.now();
        let coordinator = &self.coordinators[number];
        if !coordinator.up || self.links[link].over_there {
            return;
        }
        let pause = coordinator.paused_until.saturating_sub(now);
        if self.nodes[self.links[link].node].cut || !pause.is_zero() {
            // What is sent again by TCP arrives late, if the link still exists then.
            let later = pause.max(Duration::from_millis(200));
            self.plan(later, Happening::ToCoordinator { link, message });
            return;
        }
        let message = wire::AgentMessage::from(message);
        let AgentMessage { report, .. } =
            AgentMessage::try_from(message.clone()).expect("agents follow the protocol");
        if matches!(report, AgentReport::Hello(_)) {
            self.attach(link, message);
            return;
        }
        if self.newest_link(number, link) {
            let renews = matches!(report, AgentReport::Renewal { .. });
            let input = intake::input(&agent, report).expect("agents follow the protocol");
            self.coordinator_takes(number, input);
            if renews {
                let renewed = AgentOrder { incarnation: Incarnation(0), command: AgentCommand::Renewed };
                self.send_order(link, renewed);
            }
        }
    }

    fn attach(&mut self, link: usize, message: wire::AgentMessage) {
        let number = self.links[link].coordinator;
        let run = self.shape.settings().run;
        let hello = intake::hello(message, &run).expect("agents follow the protocol");
        if self.links[link].attached {
            return;
        }
        self.links[link].attached = true;
        let orders = self.links[link].sender.clone();
        self.coordinator_takes(number, Input::AgentAttached { hello, orders });
    }

    pub(crate) fn coordinator_sees_the_end(&mut self, link: usize) {
        let number = self.links[link].coordinator;
        let newest = self.newest_link(number, link);
        if std::mem::replace(&mut self.links[link].over_there, true) || !newest {
            return;
        }
        let agent = self.links[link].agent.clone();
        self.coordinator_takes(number, Input::AgentDetached { agent });
    }

    pub(crate) fn store_answers(&mut self, number: usize, request: &ChainRequest) {
        let input = match request {
            ChainRequest::Commit(request) => {
                let (stage, step) = (request.stage, request.step);
                let mut request = request.clone();
                if self.has(Bug::CommitWithoutARank) {
                    request.parts.pop();
                }
                let fenced = !self.has(Bug::FenceIgnored);
                if self.has(Bug::CommittedTwice) {
                    drop(self.chain.append(&request, fenced));
                }
                match self.chain.append(&request, fenced) {
                    Ok(sequence) => {
                        self.judge.committed(request.incarnation);
                        let manifest_json = manifest(sequence, step).to_string();
                        Input::Sealed { stage, step, sealed: Sealed { sequence, manifest_json } }
                    }
                    Err(message) => Input::Event(Event::CommitFailed { message, hint: None }),
                }
            }
            ChainRequest::FindWhole => {
                let found = self.chain.newest().map(|(sequence, entry)| Resume {
                    stage: entry.stage,
                    step: entry.step,
                    manifest: manifest(sequence, entry.step),
                });
                Input::Whole(Whole { found, passed_over: vec!["a part is damaged".into()] })
            }
        };
        self.coordinator_takes(number, input);
    }
}

impl World {
    /// The answer to a commit that the store has not seen yet.
    fn sealed_too_early(&self, request: &ChainRequest) -> Option<Input> {
        let ChainRequest::Commit(CommitRequest { stage, step, .. }) = *request else { return None };
        let sequence = self.chain.entries.len() as u64 + 1;
        let manifest_json = manifest(sequence, step).to_string();
        Some(Input::Sealed { stage, step, sealed: Sealed { sequence, manifest_json } })
    }
}

fn manifest(sequence: u64, step: Step) -> serde_json::Value {
    serde_json::json!({ "sequence": sequence, "step": step })
}
