//! A model of training processes: what they hold, what they say, and how the ranks of a generation step together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_coordinator::agent::core::AgentInput;
use longtake_shared::ids::{Epoch, Generation, LaneId, Rank, Step, WorkerId};
use longtake_shared::protocol::stamp::StepPhase;
use longtake_shared::protocol::{
    Ending, FailureScope, Flags, Formation, GenerationInputs, Identity, Kept, Order, Progress, SavedParts,
    SavedStage, Stage, WorkerHello, WorkerMessage, WorkerOrder, WorkerReport,
};
use longtake_shared::units::Seconds;

use crate::bugs::Bug;
use crate::world::{Happening, World};

/// What a worker does in its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Nothing,
    Loads,
    Waits,
    Trains,
    /// Its collective has failed; it waits to be told.
    Broken,
    /// It waits for its last checkpoint.
    Stops,
    Left,
}

/// A worker's process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) node: usize,
    pub(crate) link: u64,
    pub(crate) connected: bool,
    pub(crate) frozen: bool,
    /// Its last sign of life, by its machine's clock.
    pub(crate) alive: Duration,
    pub(crate) phase: StepPhase,
    /// Since when it is in that phase, by its machine's clock.
    pub(crate) since: Duration,
    pub(crate) sequence: u64,
    pub(crate) step: Step,
    pub(crate) identity: Identity,
    /// When the latest order arrives.
    pub(crate) last_order: Duration,
    index: u32,
    doing: Doing,
    whole: bool,
    held: Vec<LaneId>,
    lanes: Vec<LaneId>,
    flags: Flags,
    retained: Vec<WorkerMessage>,
}

/// The ranks of a generation, as they come to know of it.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    ranks: BTreeMap<Rank, WorkerId>,
    lanes: Vec<Vec<LaneId>>,
    ready: BTreeSet<Rank>,
    stepping: bool,
}

impl World {
    pub(crate) fn start_worker(&mut self, node: usize, worker: WorkerId, index: u32) {
        let now = self.clock(node);
        let link = self.of_link.len() as u64;
        self.of_link.insert(link, worker.clone());
        self.nodes[node].workers.push(worker.clone());
        let process = Process {
            node,
            link,
            connected: false,
            frozen: false,
            alive: now,
            phase: StepPhase::Idle,
            since: now,
            sequence: 0,
            step: Step(0),
            identity: Identity::default(),
            last_order: Duration::ZERO,
            index,
            doing: Doing::Nothing,
            whole: false,
            held: vec![],
            lanes: vec![],
            flags: Flags::default(),
            retained: vec![],
        };
        self.processes.insert(worker.clone(), process);
        let after = self.dice.millis(30, 300);
        self.plan(after, Happening::WorkerConnects { worker });
    }

    pub(crate) fn worker_connects(&mut self, worker: &WorkerId) {
        let now = self.now();
        let Some(process) = self.processes.get_mut(worker) else { return };
        process.connected = true;
        process.alive = now + self.nodes[process.node].ahead;
        let (node, link) = (process.node, process.link);
        let ring_address = ([10, 0, 0, 1], 4000).into();
        let hello = WorkerHello { index: process.index, pid: 1, ring_address };
        self.agent_input(node, AgentInput::WorkerJoined { link, hello });
    }

    fn says(&mut self, worker: &WorkerId, report: WorkerReport) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        if matches!(report, WorkerReport::Left { .. }) {
            process.retained.clear();
        }
        let repeats = !matches!(report, WorkerReport::Progress(_));
        let message = WorkerMessage::Report { identity: process.identity.clone(), report };
        if repeats {
            process.retained.push(message.clone());
        }
        self.plan(Duration::from_micros(200), Happening::FromWorker { worker: worker.clone(), message });
    }

    pub(crate) fn worker_says_to_agent(&mut self, worker: &WorkerId, message: WorkerMessage) {
        let Some(process) = self.processes.get(worker) else { return };
        let (node, link) = (process.node, process.link);
        let pause = self.nodes[node].paused_until.saturating_sub(self.now());
        if pause.is_zero() {
            self.agent_input(node, AgentInput::WorkerSaid { link, message });
        } else {
            self.plan(pause, Happening::FromWorker { worker: worker.clone(), message });
        }
    }

    pub(crate) fn worker_hears(&mut self, worker: &WorkerId, order: WorkerOrder) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        if process.frozen {
            self.plan(Duration::from_millis(100), Happening::ToWorker { worker: worker.clone(), order });
            return;
        }
        let WorkerOrder { identity, order, inputs } = order;
        let older = identity.generation < process.identity.generation;
        let obeyed = self.bug == Some(Bug::StaleOrderObeyed);
        if (older && !obeyed) || identity.incarnation < process.identity.incarnation {
            return;
        }
        let same = identity.generation == process.identity.generation;
        match order {
            Order::Form(formation) if !same => {
                let inputs = inputs.expect("a generation is formed with its inputs");
                self.forms(worker, identity, &formation, &inputs);
            }
            Order::Train if same && process.doing == Doing::Waits => self.trains(worker),
            Order::Abort { .. } if same && process.doing != Doing::Left => self.leaves(worker),
            Order::SetFlags(flags) => process.flags = flags,
            Order::Committed { stage, step, .. } => {
                assert!(self.chain.holds(stage, step), "{step} is in the chain before a worker hears of it");
                let answered = |message: &WorkerMessage| {
                    let WorkerMessage::Report { report, .. } = message else { return false };
                    matches!(report, WorkerReport::PartsSaved(saved) if saved.step <= step)
                };
                process.retained.retain(|message| !answered(message));
                if process.doing == Doing::Stops && step >= process.step {
                    let finished = WorkerReport::Finished { step: process.step, ending: Ending::Stopped };
                    self.says(worker, finished);
                }
            }
            Order::Adopted => {
                for message in process.retained.clone() {
                    let after = Duration::from_micros(200);
                    self.plan(after, Happening::FromWorker { worker: worker.clone(), message });
                }
            }
            Order::Shutdown => {
                self.plan(Duration::from_millis(5), Happening::WorkerDies { worker: worker.clone() });
            }
            _ => {}
        }
    }

    fn forms(
        &mut self,
        worker: &WorkerId,
        identity: Identity,
        formation: &Formation,
        inputs: &GenerationInputs,
    ) {
        let (generation, rank) = (identity.generation, identity.rank);
        let lanes = &formation.lanes;
        self.judge.formed(generation, identity.incarnation, lanes, self.shape.lanes());
        self.judge.entered(worker, generation);
        let now = self.now();
        let Some(process) = self.processes.get_mut(worker) else { return };
        process.identity = identity;
        process.doing = Doing::Loads;
        process.retained.clear();
        process.flags = Flags::default();
        (process.phase, process.since) = (StepPhase::Idle, now + self.nodes[process.node].ahead);
        process.lanes.clone_from(&lanes[rank.index()]);
        process.step = if let Some(carried) = &formation.carried {
            let held = process.step;
            assert!(
                rank != carried.holder || held == carried.step,
                "{rank} holds {held}, not {}",
                carried.step
            );
            carried.step
        } else {
            process.held.clear();
            let manifest = inputs.resume_json.as_deref().map(serde_json::from_str::<serde_json::Value>);
            let manifest = manifest.and_then(Result::ok);
            let number = |name: &str| manifest.as_ref().and_then(|manifest| manifest[name].as_u64());
            if number("sequence").is_some_and(|sequence| !self.chain.is_whole(sequence)) {
                return self.cannot_read(worker);
            }
            Step(number("step").unwrap_or(0))
        };
        process.whole = false;
        let crew = self.crews.entry(generation).or_default();
        let other = crew.ranks.insert(rank, worker.clone());
        assert_eq!(other, None, "{rank} of {generation} is one worker");
        crew.lanes.clone_from(lanes);
        let after = self.dice.millis(10, 200);
        self.plan(after, Happening::WorkerReady { worker: worker.clone(), generation });
    }

    fn cannot_read(&mut self, worker: &WorkerId) {
        let failed = WorkerReport::Failed {
            message: "the checkpoint cannot be used".into(),
            hint: None,
            scope: FailureScope::Checkpoint,
            log: vec![],
        };
        self.says(worker, failed);
        self.plan(Duration::from_millis(5), Happening::WorkerDies { worker: worker.clone() });
    }

    pub(crate) fn worker_is_ready(&mut self, worker: &WorkerId, generation: Generation) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        if process.frozen {
            let worker = worker.clone();
            self.plan(Duration::from_millis(100), Happening::WorkerReady { worker, generation });
            return;
        }
        if process.identity.generation != generation || process.doing != Doing::Loads {
            return;
        }
        process.doing = Doing::Waits;
        process.whole = true;
        let lanes = process.lanes.clone();
        process.held.extend(lanes);
        process.held.sort();
        process.held.dedup();
        let rank = process.identity.rank;
        self.crews.entry(generation).or_default().ready.insert(rank);
        self.says(worker, WorkerReport::Ready);
    }

    fn trains(&mut self, worker: &WorkerId) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        process.doing = Doing::Trains;
        process.held = process.lanes.clone();
        let generation = process.identity.generation;
        let crew = self.crews.entry(generation).or_default();
        assert_eq!(
            crew.ready.len(),
            crew.lanes.len(),
            "all ranks of {generation} are ready before it trains"
        );
        if !std::mem::replace(&mut crew.stepping, true) {
            let step = self.shape.step;
            self.plan(step, Happening::Steps(generation));
        }
    }

    fn leaves(&mut self, worker: &WorkerId) {
        let now = self.now();
        let Some(process) = self.processes.get_mut(worker) else { return };
        process.doing = Doing::Left;
        (process.phase, process.since) = (StepPhase::Idle, now + self.nodes[process.node].ahead);
        let kept = process.whole.then(|| Kept {
            stage: SavedStage::Train,
            step: process.step,
            lanes: process.held.clone(),
            copies: vec![],
        });
        self.says(worker, WorkerReport::Left { kept });
    }

    /// All ranks take a step where all can; where one cannot, the others wait in their collective, or see it fail.
    pub(crate) fn steps(&mut self, generation: Generation) {
        let Some(crew) = self.crews.get(&generation) else { return };
        let world = crew.lanes.len();
        let members: Vec<WorkerId> = crew.ranks.values().cloned().collect();
        let here = |id: &WorkerId| {
            self.processes.get(id).filter(|process| process.identity.generation == generation)
        };
        let present = members.len() == world && members.iter().all(|id| here(id).is_some());
        let in_it = |id: &WorkerId| {
            here(id).is_some_and(|process| matches!(process.doing, Doing::Trains | Doing::Waits))
        };
        if !present || !members.iter().all(in_it) {
            self.collective_fails(&members, generation);
            return;
        }
        let apart = |id: &WorkerId| {
            here(id).map(|process| (self.nodes[process.node].cut, self.nodes[process.node].ring_cut))
        };
        let first = apart(&members[0]);
        let reach = members.iter().all(|id| apart(id) == first)
            && (world == 1 || first.is_none_or(|(_, ring)| !ring));
        let able = members
            .iter()
            .all(|id| here(id).is_some_and(|process| !process.frozen && process.doing == Doing::Trains));
        if able && reach {
            self.all_step(&members, generation);
        } else {
            self.wait_in_collective(&members);
            self.plan(Duration::from_millis(50), Happening::Steps(generation));
        }
    }

    fn collective_fails(&mut self, members: &[WorkerId], generation: Generation) {
        let mut waits = false;
        for id in members {
            let Some(process) = self.processes.get_mut(id) else { continue };
            if process.identity.generation != generation {
                continue;
            }
            if process.frozen {
                waits = true;
            } else if process.doing == Doing::Trains {
                process.doing = Doing::Broken;
                self.says(id, WorkerReport::CollectiveFailed { message: "a peer is gone".into() });
            }
        }
        if waits {
            self.plan(Duration::from_millis(50), Happening::Steps(generation));
        }
    }

    fn wait_in_collective(&mut self, members: &[WorkerId]) {
        let now = self.now();
        for id in members {
            if let Some(process) = self.processes.get_mut(id)
                && !process.frozen
                && process.phase != StepPhase::Reduce
            {
                (process.phase, process.since) = (StepPhase::Reduce, now + self.nodes[process.node].ahead);
                process.sequence += 1;
            }
        }
    }

    fn all_step(&mut self, members: &[WorkerId], generation: Generation) {
        self.judge.stepped(generation);
        let now = self.now();
        let (mut stop, mut save, mut leave) = (false, false, false);
        let reached = self.processes[&members[0]].step.next();
        for id in members {
            let Some(process) = self.processes.get_mut(id) else { continue };
            process.step = process.step.next();
            assert_eq!(process.step, reached, "all ranks of {generation} are at the same step");
            (process.phase, process.since) = (StepPhase::Look, now + self.nodes[process.node].ahead);
            process.sequence += 1;
            stop |= process.flags.stop;
            save |= process.flags.checkpoint;
            leave |= process.flags.reconfigure;
        }
        let progress = Progress {
            stage: Stage::Train,
            done: reached.0,
            total: u64::MAX,
            epoch: Epoch(0),
            loss: None,
            numbers: BTreeMap::new(),
            elapsed: Seconds(0.0),
        };
        self.says(&members[0], WorkerReport::Progress(progress));
        if stop || save {
            for (rank, id) in members.iter().enumerate() {
                let parts = serde_json::json!({ "rank": rank, "step": reached, "generation": generation });
                let (stage, step, average_map) = (SavedStage::Train, reached, None);
                self.says(id, WorkerReport::PartsSaved(SavedParts { stage, step, average_map, parts }));
            }
        }
        if stop {
            for id in members {
                if let Some(process) = self.processes.get_mut(id) {
                    process.doing = Doing::Stops;
                }
            }
        } else if leave {
            for id in members {
                self.leaves(id);
            }
        } else {
            let step = self.shape.step;
            self.plan(step, Happening::Steps(generation));
        }
    }
}
