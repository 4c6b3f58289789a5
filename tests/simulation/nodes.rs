//! Nodes: the real core of an agent, its links to coordinators, and the processes it holds.

use std::collections::BTreeMap;
use std::time::Duration;

use longtake_coordinator::agent::core::{
    AgentCore, AgentEnd, AgentIdentity, AgentInput, AgentOutput, OnLoss, Reading,
};
use longtake_shared::ids::{AgentId, WorkerId};
use longtake_shared::protocol::flight::FlightRecord;
use longtake_shared::protocol::{AgentMessage, AgentOrder, ExitCause, wire};
use tokio::sync::mpsc;

use crate::bugs::Bug;
use crate::world::{Happening, World};

/// How long after a fault or its end a worker may still be killed because of it.
const LONGEST_CONSEQUENCE: Duration = Duration::from_secs(8);

/// A machine.
#[derive(Default)]
pub(crate) struct Node {
    pub(crate) core: Option<AgentCore>,
    /// Rises with each start of its agent.
    pub(crate) life: u64,
    /// Nothing outside reaches it.
    pub(crate) cut: bool,
    /// Its workers do not reach others, though its agent does.
    pub(crate) ring_cut: bool,
    /// How far its clock has leapt. A monotonic clock never goes back.
    pub(crate) ahead: Duration,
    /// Its agent is stopped until then.
    pub(crate) paused_until: Duration,
    /// Those that were started here and may live.
    pub(crate) workers: Vec<WorkerId>,
    link: Option<usize>,
    /// The link that was opened last.
    newest: usize,
    call: u64,
}

/// A connection of an agent to a coordinator.
pub(crate) struct Link {
    pub(crate) node: usize,
    life: u64,
    pub(crate) agent: AgentId,
    pub(crate) coordinator: usize,
    pub(crate) attached: bool,
    pub(crate) over_there: bool,
    over_here: bool,
    pub(crate) sender: mpsc::UnboundedSender<AgentOrder>,
    orders: mpsc::UnboundedReceiver<AgentOrder>,
    /// Nothing overtakes what was sent before.
    last_up: Duration,
    last_down: Duration,
}

impl World {
    pub(crate) fn start_node(&mut self, number: usize) {
        if self.nodes[number].core.is_some() {
            return;
        }
        self.nodes[number].life += 1;
        let life = self.nodes[number].life;
        let identity = AgentIdentity {
            agent: AgentId(format!("n{number}.{life}")),
            host: format!("n{number}"),
            slots: self.shape.slots,
            on_loss: OnLoss::Reconnect,
        };
        let (core, outputs) = AgentCore::new(identity, self.clock(number));
        self.nodes[number].core = Some(core);
        for output in outputs {
            self.agent_does(number, output);
        }
        self.plan(Duration::from_millis(200), Happening::AgentTicks { node: number, life });
    }

    /// The agent and its workers are gone at once; nobody is told.
    pub(crate) fn node_crashes(&mut self, number: usize) {
        self.nodes[number].core = None;
        let of_node = |process: &crate::workers::Process| process.node == number;
        self.processes.retain(|_, process| !of_node(process));
        if let Some(link) = self.nodes[number].link.take() {
            self.links[link].over_here = true;
            let after = if self.nodes[number].cut { Duration::from_hours(1) } else { self.latency() };
            self.plan(after, Happening::LinkOverThere(link));
        }
    }

    /// What a machine's clock shows.
    pub(crate) fn clock(&self, node: usize) -> Duration {
        self.now() + self.nodes[node].ahead
    }

    pub(crate) fn latency(&mut self) -> Duration {
        if self.dice.one_in(50) { self.dice.millis(5, 150) } else { self.dice.millis(0, 3) }
    }

    pub(crate) fn agent_does(&mut self, node: usize, output: AgentOutput) {
        match output {
            AgentOutput::Call { after } => {
                self.nodes[node].call += 1;
                let call = self.nodes[node].call;
                let latency = self.latency();
                self.plan(after + latency, Happening::AgentCalls { node, call });
            }
            AgentOutput::HangUp => self.hang_up(node),
            AgentOutput::Send(message) | AgentOutput::SendWithLog { message, .. } => {
                self.send_up(node, message);
            }
            AgentOutput::Tell { link, order } => {
                let now = self.now();
                let after = self.dice.millis(0, 1);
                let Some(worker) = self.of_link.get(&link).cloned() else { return };
                let Some(process) = self.processes.get_mut(&worker) else { return };
                // The link of a worker is one ordered stream.
                process.last_order = process.last_order.max(now + after);
                let after = process.last_order.saturating_sub(now);
                self.plan(after, Happening::ToWorker { worker, order: *order });
            }
            AgentOutput::Start { worker, index } => self.start_worker(node, worker, index),
            AgentOutput::Kill { .. } if self.has(Bug::LostWorkerNotKilled) => {}
            AgentOutput::Kill { worker } => {
                self.judge_kill(&worker);
                self.plan(Duration::from_millis(1), Happening::WorkerDies { worker });
            }
            AgentOutput::End(end) => self.agent_ends(node, &end),
        }
    }

    /// A member of the newest generation is killed because a fault has made it look dead or late. Without a fault in the last
    /// seconds, and before the run ends, each kill is an error. A worker that missed the order to form its generation, because
    /// its node was cut off, may be killed later: it cannot report that it has left.
    fn judge_kill(&self, worker: &WorkerId) {
        let (Some(process), Some(number)) = (self.processes.get(worker), self.current()) else { return };
        if process.identity.generation != self.coordinators[number].core.engine().state().generation {
            return;
        }
        let ends = self.asked_to_stop || self.is_ending();
        let calm = self.now().saturating_sub(self.disturbed) > LONGEST_CONSEQUENCE;
        assert!(process.frozen || ends || !calm, "{worker} is killed although nothing disturbs it");
    }

    /// An agent that ends takes its workers with it. A scheduler starts another one.
    fn agent_ends(&mut self, node: usize, end: &AgentEnd) {
        assert!(!matches!(end, AgentEnd::Refused(_)), "no coordinator refuses an agent: {end:?}");
        self.node_crashes(node);
        let after = self.dice.millis(500, 2000);
        self.plan(after, Happening::NodeStarts(node));
    }

    fn hang_up(&mut self, node: usize) {
        if let Some(link) = self.nodes[node].link.take() {
            self.links[link].over_here = true;
            let latency = self.latency();
            self.plan(latency, Happening::LinkOverThere(link));
        }
    }

    /// A link breaks: both ends see it, and what is on its way is lost.
    pub(crate) fn break_link(&mut self, node: usize) {
        if let Some(link) = self.nodes[node].link {
            let (here, there) = (self.latency(), self.latency());
            self.links[link].attached = false;
            self.plan(here, Happening::LinkOverHere(link));
            self.plan(there, Happening::LinkOverThere(link));
        }
    }

    fn send_up(&mut self, node: usize, message: AgentMessage) {
        let Some(link) = self.nodes[node].link else { return };
        let mut at = self.now() + self.latency();
        if !self.shape.wild {
            at = at.max(self.links[link].last_up);
        }
        self.links[link].last_up = at;
        let after = at.saturating_sub(self.now());
        if self.dice.one_in(60) {
            let again = after + self.dice.millis(1, 400);
            self.plan(again, Happening::ToCoordinator { link, message: message.clone() });
        }
        self.plan(after, Happening::ToCoordinator { link, message });
    }

    /// What a core has said since, on all of its links.
    pub(crate) fn send_orders(&mut self, coordinator: usize) {
        for node in 0..self.nodes.len() {
            let Some(link) =
                self.nodes[node].link.filter(|link| self.links[*link].coordinator == coordinator)
            else {
                continue;
            };
            while let Ok(order) = self.links[link].orders.try_recv() {
                self.send_order(link, order);
            }
        }
    }

    /// A link is one ordered stream (an agent that hears of a worker before it is welcome may drop it), so orders to one agent
    /// keep their order by construction; those to different agents overtake each other, in wild histories by far. What is
    /// doubled stands for what is told again although it was heard.
    pub(crate) fn send_order(&mut self, link: usize, order: AgentOrder) {
        let Some(order) = self.altered_order(order) else { return };
        let late = self.shape.wild && self.dice.one_in(20);
        let latency = if late { self.dice.millis(5, 400) } else { self.latency() };
        let at = (self.now() + latency).max(self.links[link].last_down);
        self.links[link].last_down = at;
        let after = at.saturating_sub(self.now());
        if self.dice.one_in(60) {
            let again = after + self.dice.millis(1, 400);
            self.plan(again, Happening::ToAgent { link, order: order.clone() });
        }
        self.plan(after, Happening::ToAgent { link, order });
    }

    /// Whether no newer link of the same agent exists.
    pub(crate) fn newest_link(&self, coordinator: usize, link: usize) -> bool {
        let newest = self.nodes[self.links[link].node].newest;
        newest <= link
            || self.links[newest].coordinator != coordinator
            || self.links[newest].agent != self.links[link].agent
    }

    pub(crate) fn agent_calls(&mut self, node: usize, call: u64) {
        if self.nodes[node].call != call || self.nodes[node].core.is_none() {
            return;
        }
        let reachable = self.current().filter(|_| !self.nodes[node].cut);
        let Some(coordinator) = reachable else {
            self.agent_input(node, AgentInput::Lost { reason: "nobody answers".into() });
            return;
        };
        let (sender, orders) = mpsc::unbounded_channel();
        let life = self.nodes[node].life;
        let now = self.now();
        self.links.push(Link {
            node,
            life,
            agent: AgentId(format!("n{node}.{life}")),
            coordinator,
            attached: false,
            over_there: false,
            over_here: false,
            sender,
            orders,
            last_up: now,
            last_down: now,
        });
        self.nodes[node].newest = self.links.len() - 1;
        self.nodes[node].link = Some(self.links.len() - 1);
        let run = self.shape.settings().run;
        self.agent_input(node, AgentInput::Reached { run });
    }

    pub(crate) fn agent_hears(&mut self, link: usize, order: AgentOrder) {
        let Link { node, life, over_here, .. } = self.links[link];
        if over_here || self.nodes[node].life != life || self.nodes[node].link != Some(link) {
            return;
        }
        let pause = self.nodes[node].paused_until.saturating_sub(self.now());
        if self.nodes[node].cut || !pause.is_zero() {
            let later = pause.max(Duration::from_millis(200));
            self.plan(later, Happening::ToAgent { link, order });
            return;
        }
        let order = wire::AgentOrder::from(order).try_into().expect("coordinators follow the protocol");
        self.agent_input(node, AgentInput::Order(order));
    }

    pub(crate) fn agent_sees_the_end(&mut self, link: usize) {
        let node = self.links[link].node;
        if std::mem::replace(&mut self.links[link].over_here, true) || self.nodes[node].link != Some(link) {
            return;
        }
        self.nodes[node].link = None;
        self.agent_input(node, AgentInput::Lost { reason: "the link broke".into() });
    }

    pub(crate) fn agent_ticks(&mut self, node: usize, life: u64) {
        if self.nodes[node].life != life || self.nodes[node].core.is_none() {
            return;
        }
        let pause = self.nodes[node].paused_until.saturating_sub(self.now());
        if pause.is_zero() {
            let readings = self.readings(node);
            self.agent_input(node, AgentInput::Tick { readings });
        }
        self.plan(pause.max(Duration::from_millis(200)), Happening::AgentTicks { node, life });
    }

    fn readings(&mut self, node: usize) -> BTreeMap<WorkerId, Reading> {
        let now = self.clock(node);
        let mut readings = BTreeMap::new();
        self.nodes[node].workers.retain(|id| self.processes.contains_key(id));
        for id in &self.nodes[node].workers {
            let Some(process) = self.processes.get_mut(id).filter(|process| process.connected) else {
                continue;
            };
            if !process.frozen {
                process.alive = now;
            }
            let record = FlightRecord {
                sequence: process.sequence,
                generation: process.identity.generation,
                step: process.step,
                phase: process.phase,
                resumed: false,
                entered_at: process.since,
                took: None,
            };
            let reading = Reading { alive: Some(process.alive), current: Some(record), finished: vec![] };
            readings.insert(id.clone(), reading);
        }
        readings
    }

    pub(crate) fn worker_dies(&mut self, worker: &WorkerId) {
        let Some(process) = self.processes.remove(worker) else { return };
        let ended = AgentInput::Ended {
            worker: worker.clone(),
            cause: ExitCause::Signal(9),
            log: vec![],
            last: None,
        };
        self.agent_input(process.node, AgentInput::WorkerSilent { link: process.link });
        self.agent_input(process.node, ended);
    }
}
