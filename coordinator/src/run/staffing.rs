//! Agents connect and disconnect; workers are started on them and join.

use std::collections::BTreeSet;
use std::time::Duration;

use longtake_shared::ids::{AgentId, WorkerId};
use longtake_shared::protocol::{Doing, HeldWorker, Order};

use super::RunEngine;
use super::command::Command;
use super::membership::{self, Agent, Worker, WorkerState};
use super::phase::Phase;
use crate::updates::{Incident, Nearness, RunUpdate};

impl RunEngine {
    /// An agent has connected, or reconnected with the workers it holds.
    pub(super) fn agent_connected(
        &mut self,
        now: Duration,
        id: &AgentId,
        (host, slots): (String, usize),
        held: Vec<HeldWorker>,
        commands: &mut Vec<Command>,
    ) {
        self.find_again(now, id, &held, commands);
        self.state
            .roster
            .agents
            .insert(id.clone(), Agent { host, slots, heard: now, broken: None, woken: None });
        self.state.roster.lost.remove(id);
        // Other workers may have replaced them.
        let of_agent = self.state.roster.at_large.iter().filter(|(_, agent)| *agent == id);
        commands.extend(
            of_agent
                .map(|(worker, agent)| Command::KillWorker { agent: agent.clone(), worker: worker.clone() }),
        );
        let holds: Vec<WorkerId> = held.iter().map(|held| held.worker.clone()).collect();
        for held in held {
            self.take_back(now, id, held, commands);
        }
        // Workers that the agent holds no more without having reported their end.
        let lost: Vec<WorkerId> = self
            .state
            .roster
            .workers
            .iter()
            .filter(|(worker, known)| known.agent == *id && known.alive() && !holds.contains(worker))
            .map(|(worker, _)| worker.clone())
            .collect();
        for worker in lost {
            let incident = Incident::new(Nearness::Cause, format!("{} is gone", self.name(&worker)));
            self.unreachable(now, std::slice::from_ref(&worker), incident, commands);
        }
    }

    /// Accepts a worker that an agent holds already; one that was declared lost is killed.
    fn take_back(&mut self, now: Duration, agent: &AgentId, held: HeldWorker, commands: &mut Vec<Command>) {
        let HeldWorker { worker: id, index, hello } = held;
        let index = index as usize;
        let joined =
            hello.map(|hello| WorkerState::Joined { ring_address: hello.ring_address, pid: hello.pid });
        let has_room = self.has_room(index);
        match self.state.roster.workers.get_mut(&id) {
            Some(known) if known.alive() => {
                known.agent = agent.clone();
                if let Some(joined) = joined {
                    known.state = joined;
                }
            }
            None if has_room => {
                let worker = Worker::new(index, agent.clone(), now, joined.unwrap_or(WorkerState::Starting));
                self.state.roster.workers.insert(id.clone(), worker);
                self.state.roster.last_joined = now;
            }
            Some(_) | None => {
                commands.push(Command::KillWorker { agent: agent.clone(), worker: id });
                return;
            }
        }
        self.tell_again(&id, commands);
    }

    /// Repeats the orders that a worker may have missed while its agent was disconnected. `Adopted` makes it repeat unanswered
    /// messages.
    fn tell_again(&self, id: &WorkerId, commands: &mut Vec<Command>) {
        let to = || vec![id.clone()];
        match &self.state.phase {
            Phase::Forming { team, order, .. } if team.rank(id).is_some() => {
                if let Some(order) = order {
                    self.tell(to(), order.clone(), commands);
                }
                self.tell(to(), Order::Adopted, commands);
            }
            Phase::Training { team, .. } if team.rank(id).is_some() => {
                self.tell(to(), Order::Adopted, commands);
            }
            Phase::Recovering { waiting, .. } if waiting.contains(id) => {
                let reason = "the generation ended while the agent was disconnected".to_owned();
                self.tell(to(), Order::Abort { reason }, commands);
                self.tell(to(), Order::Adopted, commands);
            }
            Phase::Ending { .. } => self.tell(to(), Order::Shutdown, commands),
            _ => {}
        }
    }

    /// Whether no process with that index may still run.
    pub(super) fn has_room(&self, index: usize) -> bool {
        index < self.settings.processes()
            && !self.state.roster.workers.values().any(|worker| worker.index == index && worker.alive())
    }

    pub(super) fn agent_renewed(&mut self, now: Duration, id: &AgentId, doing: Vec<(WorkerId, Doing)>) {
        let Some(agent) = self.state.roster.agents.get_mut(id) else { return };
        agent.heard = now;
        for (worker, doing) in doing {
            if let Some(worker) = self.state.roster.workers.get_mut(&worker) {
                worker.doing = Some(doing);
            }
        }
    }

    /// An agent kills its workers when it ends, so at the end of the run none is awaited. During the run it may reconnect within
    /// its grace.
    pub(super) fn agent_disconnected(&mut self, now: Duration, id: &AgentId) {
        if matches!(self.state.phase, Phase::Ending { .. }) {
            let of_agent = |worker: &&mut Worker| worker.agent == *id && worker.alive();
            for worker in self.state.roster.workers.values_mut().filter(of_agent) {
                worker.state = WorkerState::Gone { cause: None };
            }
        }
        if let Some(agent) = self.state.roster.agents.get_mut(id) {
            agent.broken = Some(now);
        }
    }

    /// Starts missing workers on the agents, in order, as far as they have slots.
    pub(super) fn start_workers(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let adopting = matches!(self.state.phase, Phase::Forming { adopted: Some(_), .. });
        let over = matches!(
            self.state.phase,
            Phase::Recovering { hopeless: true, .. } | Phase::Ending { .. } | Phase::Finished { .. }
        );
        if adopting || over || self.state.requests.flags.stop {
            return;
        }
        let alive = || self.state.roster.workers.values().filter(|worker| worker.alive());
        let taken: BTreeSet<usize> = alive().map(|worker| worker.index).collect();
        let trains = matches!(self.state.phase, Phase::Forming { .. } | Phase::Training { .. });
        let given_up = |index: usize| trains && self.state.progress.patience.gives_up(index);
        let mut missing =
            (0..self.settings.processes()).filter(|index| !taken.contains(index) && !given_up(*index));
        let mut starts = Vec::new();
        for (id, agent) in self.state.roster.agents.iter().filter(|(_, agent)| agent.broken.is_none()) {
            let busy = alive().filter(|worker| worker.agent == *id).count();
            starts.extend(
                missing.by_ref().take(agent.slots.saturating_sub(busy)).map(|index| (id.clone(), index)),
            );
        }
        for (agent, index) in starts {
            let worker = membership::worker_id(index, self.state.incarnation, self.state.roster.started);
            self.state.roster.started += 1;
            self.state.roster.workers.retain(|_, worker| worker.index != index);
            let known = Worker::new(index, agent.clone(), now, WorkerState::Starting);
            self.state.roster.workers.insert(worker.clone(), known);
            commands.push(Command::StartWorker { agent, worker, index });
        }
    }

    pub(super) fn worker_joined(
        &mut self,
        now: Duration,
        id: &WorkerId,
        joined: WorkerState,
        commands: &mut Vec<Command>,
    ) {
        let Some(worker) =
            self.state.roster.workers.get_mut(id).filter(|worker| worker.state == WorkerState::Starting)
        else {
            self.state.counters.stale += 1;
            return;
        };
        worker.state = joined;
        self.state.roster.last_joined = now;
        match &self.state.phase {
            Phase::Ending { .. } => self.tell(vec![id.clone()], Order::Shutdown, commands),
            Phase::Training { .. } => self.let_others_join(commands),
            Phase::Gathering { .. } => {
                let (present, needed) = (self.joined().count(), self.settings.workers);
                if present < needed {
                    Self::announce(RunUpdate::Gathering { present, needed }, commands);
                }
            }
            Phase::Forming { .. } | Phase::Recovering { .. } | Phase::Finished { .. } => {}
        }
    }

    /// Asks the ranks to leave at their next step boundary if a waiting worker could join the generation.
    pub(super) fn let_others_join(&mut self, commands: &mut Vec<Command>) {
        let Phase::Training { team, finished, .. } = &self.state.phase else { return };
        let stands_by = self.joined().any(|id| team.rank(id).is_none());
        let wanted = team.world() < self.settings.workers && stands_by && finished.is_empty();
        if wanted && !self.state.requests.flags.reconfigure && !self.state.requests.flags.stop {
            self.state.requests.flags.reconfigure = true;
            self.tell_flags(commands);
        }
    }

    /// The connected workers.
    pub(super) fn joined(&self) -> impl Iterator<Item = &WorkerId> {
        let connected = |worker: &&Worker| matches!(worker.state, WorkerState::Joined { .. });
        self.state.roster.workers.iter().filter(move |(_, worker)| connected(worker)).map(|(id, _)| id)
    }

    /// The name of a worker within a sentence.
    pub(super) fn name(&self, id: &WorkerId) -> String {
        let index = self.state.roster.workers.get(id).map(|worker| worker.index);
        match (index, self.rank(id)) {
            (Some(index), Some(rank)) => format!("worker {index} ({rank})"),
            (Some(index), None) => format!("worker {index}"),
            (None, _) => format!("worker {id}"),
        }
    }
}
