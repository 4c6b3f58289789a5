//! A model of training processes: what they hold, what they say, and how the ranks of a generation step together.

use std::collections::BTreeMap;
use std::time::Duration;

use longtake_coordinator::agent::core::AgentInput;
use longtake_shared::ids::{Generation, Incarnation, LaneId, WorkerId};
use longtake_shared::protocol::stamp::StepPhase;
use longtake_shared::protocol::{PROTOCOL_VERSION, wire};
use wire::worker_message::Body;
use wire::worker_order::Body as OrderBody;

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
    pub(crate) step: u64,
    index: u32,
    identity: wire::Identity,
    doing: Doing,
    whole: bool,
    held: Vec<LaneId>,
    lanes: Vec<LaneId>,
    flags: wire::SetFlags,
    retained: Vec<wire::WorkerMessage>,
}

/// The ranks of a generation, as they come to know of it.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    ranks: BTreeMap<u32, WorkerId>,
    lanes: Vec<Vec<LaneId>>,
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
            step: 0,
            index,
            identity: wire::Identity::default(),
            doing: Doing::Nothing,
            whole: false,
            held: vec![],
            lanes: vec![],
            flags: wire::SetFlags::default(),
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
        let hello = wire::WorkerHello {
            protocol: PROTOCOL_VERSION,
            index: process.index,
            pid: 1,
            ring_address: "10.0.0.1:4000".into(),
        };
        let message =
            wire::WorkerMessage { identity: Some(wire::Identity::default()), body: Some(Body::Hello(hello)) };
        self.agent_input(node, AgentInput::WorkerJoined { link, hello: message });
    }

    fn says(&mut self, worker: &WorkerId, body: Body) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        let message = wire::WorkerMessage { identity: Some(process.identity.clone()), body: Some(body) };
        if matches!(message.body, Some(Body::Left(_))) {
            process.retained.clear();
        }
        if !matches!(message.body, Some(Body::Progress(_))) {
            process.retained.push(message.clone());
        }
        self.plan(Duration::from_micros(200), Happening::FromWorker { worker: worker.clone(), message });
    }

    pub(crate) fn worker_says_to_agent(&mut self, worker: &WorkerId, message: wire::WorkerMessage) {
        let Some(process) = self.processes.get(worker) else { return };
        let (node, link) = (process.node, process.link);
        let pause = self.nodes[node].paused_until.saturating_sub(self.now());
        if pause.is_zero() {
            self.agent_input(node, AgentInput::WorkerSaid { link, message });
        } else {
            self.plan(pause, Happening::FromWorker { worker: worker.clone(), message });
        }
    }

    pub(crate) fn worker_hears(&mut self, worker: &WorkerId, order: wire::WorkerOrder) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        if process.frozen {
            self.plan(Duration::from_millis(100), Happening::ToWorker { worker: worker.clone(), order });
            return;
        }
        let identity = order.identity.unwrap_or_default();
        let older = identity.generation < process.identity.generation;
        if older || identity.incarnation < process.identity.incarnation {
            return;
        }
        let same = identity.generation == process.identity.generation;
        match order.body {
            Some(OrderBody::Form(form)) if !same => self.forms(worker, identity, &form),
            Some(OrderBody::Train(_)) if same && process.doing == Doing::Waits => self.trains(worker),
            Some(OrderBody::Abort(_)) if same && process.doing != Doing::Left => self.leaves(worker),
            Some(OrderBody::SetFlags(flags)) => process.flags = flags,
            Some(OrderBody::Committed(committed)) => {
                let answered = |message: &wire::WorkerMessage| matches!(&message.body, Some(Body::PartsSaved(saved)) if saved.step <= committed.step);
                process.retained.retain(|message| !answered(message));
                if process.doing == Doing::Stops && committed.step >= process.step {
                    let finished = wire::Finished { step: process.step, stopped: true };
                    self.says(worker, Body::Finished(finished));
                }
            }
            Some(OrderBody::Adopted(_)) => {
                for message in process.retained.clone() {
                    let after = Duration::from_micros(200);
                    self.plan(after, Happening::FromWorker { worker: worker.clone(), message });
                }
            }
            Some(OrderBody::Shutdown(_)) => {
                self.plan(Duration::from_millis(5), Happening::WorkerDies { worker: worker.clone() });
            }
            _ => {}
        }
    }

    fn forms(&mut self, worker: &WorkerId, identity: wire::Identity, form: &wire::Form) {
        let generation = Generation(identity.generation);
        let rank = identity.rank;
        let lanes: Vec<Vec<LaneId>> =
            form.lanes.iter().map(|list| list.lanes.iter().copied().map(LaneId).collect()).collect();
        self.judge.formed(generation, Incarnation(identity.incarnation), &lanes, self.shape.lanes());
        let now = self.now();
        let Some(process) = self.processes.get_mut(worker) else { return };
        process.identity = identity;
        process.doing = Doing::Loads;
        process.retained.clear();
        process.flags = wire::SetFlags::default();
        (process.phase, process.since) = (StepPhase::Idle, now + self.nodes[process.node].ahead);
        process.lanes.clone_from(&lanes[rank as usize]);
        process.step = if let Some(carried) = &form.carried {
            carried.step
        } else {
            process.held.clear();
            let manifest = form.resume_json.as_deref().map(serde_json::from_str::<serde_json::Value>);
            let manifest = manifest.and_then(Result::ok);
            let number = |name: &str| manifest.as_ref().and_then(|manifest| manifest[name].as_u64());
            if number("sequence").is_some_and(|sequence| !self.chain.is_whole(sequence)) {
                return self.cannot_read(worker);
            }
            number("step").unwrap_or(0)
        };
        process.whole = false;
        let crew = self.crews.entry(generation).or_default();
        crew.ranks.insert(rank, worker.clone());
        crew.lanes = lanes;
        let after = self.dice.millis(10, 200);
        self.plan(after, Happening::WorkerReady { worker: worker.clone(), generation });
    }

    fn cannot_read(&mut self, worker: &WorkerId) {
        let failed = wire::Failed {
            message: "the checkpoint cannot be used".into(),
            scope: wire::FailureScope::Checkpoint.into(),
            ..wire::Failed::default()
        };
        self.says(worker, Body::Failed(failed));
        self.plan(Duration::from_millis(5), Happening::WorkerDies { worker: worker.clone() });
    }

    pub(crate) fn worker_is_ready(&mut self, worker: &WorkerId, generation: Generation) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        if process.frozen {
            let worker = worker.clone();
            self.plan(Duration::from_millis(100), Happening::WorkerReady { worker, generation });
            return;
        }
        if process.identity.generation != generation.0 || process.doing != Doing::Loads {
            return;
        }
        process.doing = Doing::Waits;
        process.whole = true;
        let lanes = process.lanes.clone();
        process.held.extend(lanes);
        process.held.sort();
        process.held.dedup();
        self.says(worker, Body::Ready(wire::Ready {}));
    }

    fn trains(&mut self, worker: &WorkerId) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        process.doing = Doing::Trains;
        process.held = process.lanes.clone();
        let generation = Generation(process.identity.generation);
        let crew = self.crews.entry(generation).or_default();
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
        let kept = process.whole.then(|| wire::Kept {
            stage: wire::Stage::Train.into(),
            step: process.step,
            lanes: process.held.iter().map(|lane| lane.0).collect(),
            copies: vec![],
        });
        self.says(worker, Body::Left(wire::Left { kept }));
    }

    /// All ranks take a step where all can; where one cannot, the others wait in their collective, or see it fail.
    pub(crate) fn steps(&mut self, generation: Generation) {
        let Some(crew) = self.crews.get(&generation) else { return };
        let world = crew.lanes.len();
        let members: Vec<WorkerId> = crew.ranks.values().cloned().collect();
        let here = |id: &WorkerId| {
            self.processes.get(id).filter(|process| process.identity.generation == generation.0)
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
            if process.identity.generation != generation.0 {
                continue;
            }
            if process.frozen {
                waits = true;
            } else if process.doing == Doing::Trains {
                process.doing = Doing::Broken;
                self.says(
                    id,
                    Body::CollectiveFailed(wire::CollectiveFailed { message: "a peer is gone".into() }),
                );
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
        let reached = self.processes[&members[0]].step + 1;
        for id in members {
            let Some(process) = self.processes.get_mut(id) else { continue };
            process.step += 1;
            assert_eq!(process.step, reached, "all ranks of {generation} are at the same step");
            (process.phase, process.since) = (StepPhase::Look, now + self.nodes[process.node].ahead);
            process.sequence += 1;
            stop |= process.flags.stop;
            save |= process.flags.checkpoint;
            leave |= process.flags.reconfigure;
        }
        self.says(
            &members[0],
            Body::Progress(wire::Progress {
                stage: wire::Stage::Train.into(),
                done: reached,
                total: u64::MAX,
                ..wire::Progress::default()
            }),
        );
        if stop || save {
            for (rank, id) in members.iter().enumerate() {
                let parts = serde_json::json!({ "rank": rank, "step": reached, "generation": generation.0 });
                let parts_json = parts.to_string();
                let stage = wire::Stage::Train.into();
                self.says(
                    id,
                    Body::PartsSaved(wire::PartsSaved {
                        stage,
                        step: reached,
                        average_map: None,
                        parts_json,
                    }),
                );
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
