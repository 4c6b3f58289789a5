//! Recovery from the loss of a worker: the generation is aborted, its members leave it, and missing workers are restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_shared::hint::ExitCode;
use longtake_shared::ids::{AgentId, Rank, WorkerId};
use longtake_shared::protocol::{Doing, ExitCause, HeldWorker, Kept, Order, WorkerEnd};
use longtake_shared::units::Seconds;

use super::RunEngine;
use super::command::Command;
use super::membership::WorkerState;
use super::phase::Phase;
use super::settings::FRUITLESS_GENERATIONS;
use crate::updates::{Incident, Nearness, Outcome, RunUpdate};

impl RunEngine {
    pub(super) fn worker_exited(&mut self, now: Duration, end: WorkerEnd, commands: &mut Vec<Command>) {
        let WorkerEnd { worker: id, cause, log, last } = end;
        let name = self.name(&id);
        if self.state.roster.at_large.remove(&id).is_some() {
            self.look_for_members(now);
        }
        let Some(worker) = self.state.roster.workers.get_mut(&id).filter(|worker| worker.alive()) else {
            self.state.counters.stale += 1;
            return;
        };
        let connected = worker.state != WorkerState::Starting;
        if self.is_through(&id) && cause == ExitCause::Code(0) {
            self.gone(&id, Some(cause));
            return;
        }
        let verb = if matches!(cause, ExitCause::Signal(_)) { "was " } else { "" };
        let when = if connected { "" } else { " before it connected" };
        let (rank, hint) = (self.rank(&id), death_hint(cause));
        let incident = Incident {
            nearness: Nearness::Cause,
            cause: format!("{name} {verb}{cause}{when}"),
            hint,
            rank,
            doing: last,
            log,
        };
        if cause == ExitCause::Code(i32::from(ExitCode::NeverRestart.code())) {
            self.gone(&id, Some(cause));
            self.end(now, failed(incident, true), commands);
            return;
        }
        self.lose(now, &id, Some(cause), incident, commands);
    }

    /// A worker without progress is killed, because it could resume at any time.
    pub(super) fn worker_hung(
        &mut self,
        now: Duration,
        id: &WorkerId,
        (doing, Seconds(deadline)): (Doing, Seconds),
        log: Vec<String>,
        commands: &mut Vec<Command>,
    ) {
        let Some(worker) = self.state.roster.workers.get(id).filter(|worker| worker.alive()) else {
            self.state.counters.stale += 1;
            return;
        };
        commands.push(Command::KillWorker { agent: worker.agent.clone(), worker: id.clone() });
        let incident = Incident {
            nearness: Nearness::Cause,
            cause: format!("{} hung: at most {deadline:.1} s were expected", self.name(id)),
            hint: Some("raise `cluster.phase_deadline` if this phase may take so long".to_owned()),
            rank: self.rank(id),
            doing: Some(doing),
            log,
        };
        self.lose_sight(id);
        self.lose(now, id, None, incident, commands);
    }

    pub(super) fn agent_lost(
        &mut self,
        now: Duration,
        id: &AgentId,
        silent: Duration,
        commands: &mut Vec<Command>,
    ) {
        let Some(agent) = self.state.roster.agents.remove(id) else { return };
        self.state.roster.lost.insert(id.clone(), agent.clone());
        let of_agent: Vec<WorkerId> = self
            .state
            .roster
            .workers
            .iter()
            .filter(|(_, worker)| worker.agent == *id && worker.alive())
            .map(|(worker, _)| worker.clone())
            .collect();
        let rank = of_agent.iter().find_map(|worker| self.rank(worker));
        let incident = Incident {
            hint: Some("if the machine is only slow, raise `cluster.lease`".to_owned()),
            rank,
            ..Incident::new(
                Nearness::Cause,
                format!("the agent on `{}` was not heard of for {:.1} s", agent.host, silent.as_secs_f64()),
            )
        };
        for worker in &of_agent {
            self.lose_sight(worker);
        }
        self.unreachable(now, &of_agent, incident, commands);
    }

    /// Workers became unreachable; their processes may still run.
    pub(super) fn unreachable(
        &mut self,
        now: Duration,
        lost: &[WorkerId],
        incident: Incident,
        commands: &mut Vec<Command>,
    ) {
        for worker in lost {
            self.gone(worker, None);
        }
        if let Phase::Recovering { waiting, .. } = &mut self.state.phase {
            waiting.retain(|member| !lost.contains(member));
        }
        self.member_lost(now, lost, incident, commands);
        self.start_workers(now, commands);
    }

    pub(super) fn start_failed(
        &mut self,
        now: Duration,
        id: &WorkerId,
        message: &str,
        commands: &mut Vec<Command>,
    ) {
        if !self.state.is_alive(id) {
            self.state.counters.stale += 1;
            return;
        }
        let cause = format!("{} could not be started: {message}", self.name(id));
        self.lose(now, id, None, Incident::new(Nearness::Cause, cause), commands);
    }

    /// One worker is lost. Repeated failures of a process that the run waits for end the run, because a restart would meet the
    /// same; agents that disconnect and reconnect are awaited without limit.
    pub(super) fn lose(
        &mut self,
        now: Duration,
        id: &WorkerId,
        cause: Option<ExitCause>,
        incident: Incident,
        commands: &mut Vec<Command>,
    ) {
        self.gone(id, cause);
        let waited_for = match &mut self.state.phase {
            Phase::Recovering { team, waiting, hopeless, .. } => {
                waiting.remove(id);
                !*hopeless && team.rank(id).is_none()
            }
            phase => matches!(phase, Phase::Gathering { .. }),
        };
        let index = self.state.roster.workers.get(id).map(|worker| worker.index).filter(|_| waited_for);
        if index.is_some_and(|index| !self.state.progress.patience.try_again_at(index)) {
            self.end(now, failed(incident, true), commands);
            return;
        }
        self.member_lost(now, std::slice::from_ref(id), incident, commands);
        self.start_workers(now, commands);
    }

    /// Reacts to the loss of workers, which are already marked as gone, in the current phase.
    fn member_lost(
        &mut self,
        now: Duration,
        lost: &[WorkerId],
        incident: Incident,
        commands: &mut Vec<Command>,
    ) {
        let of = |members: &[WorkerId]| lost.iter().any(|worker| members.contains(worker));
        match &mut self.state.phase {
            Phase::Forming { team, .. } | Phase::Training { team, .. } if of(&team.members) => {
                self.recover(now, Some(incident), commands);
            }
            Phase::Recovering { team, incident: known, .. } if of(&team.members) => {
                *known = Some(match known.take() {
                    Some(known) => known.or_nearer(incident),
                    None => incident,
                });
                self.look_for_members(now);
            }
            // The loss of a spare is not the cause of the end.
            Phase::Recovering { hopeless: true, .. } => {}
            Phase::Gathering { .. } | Phase::Recovering { .. } if !lost.is_empty() => {
                Self::announce(RunUpdate::Warning { message: incident.to_string() }, commands);
            }
            Phase::Forming { .. } | Phase::Training { .. } if !lost.is_empty() => {
                let indices = lost.iter().filter_map(|worker| self.state.roster.workers.get(worker));
                for index in indices.map(|worker| worker.index) {
                    self.state.progress.patience.lost(index);
                }
                Self::announce(RunUpdate::Warning { message: incident.to_string() }, commands);
            }
            _ => {}
        }
    }

    /// Ends the live generation.
    pub(super) fn recover(&mut self, now: Duration, incident: Option<Incident>, commands: &mut Vec<Command>) {
        let Some(team) = self.state.phase.team().cloned() else { return };
        let survivors: Vec<WorkerId> =
            team.members.iter().filter(|member| self.state.is_alive(member)).cloned().collect();
        let left = match &self.state.phase {
            Phase::Training { left, .. } => left.clone(),
            _ => BTreeSet::new(),
        };
        let mut hopeless = false;
        if let Some(incident) = &incident {
            let reason = incident.to_string();
            self.tell(survivors.clone(), Order::Abort { reason }, commands);
            hopeless = !self.state.progress.patience.try_again();
        }
        let has_left = |member: &WorkerId| team.rank(member).is_some_and(|rank| left.contains(&rank));
        let waiting: BTreeSet<WorkerId> =
            survivors.iter().filter(|member| !has_left(member)).cloned().collect();
        self.state.validation.running = None;
        self.state.validation.reporting = None;
        self.state.timers.last_notice = now;
        self.state.phase =
            Phase::Recovering { team, since: now, waiting, not_before: now, incident, hopeless };
        self.look_for_members(now);
    }

    /// Ends a run whose retry budget is exhausted, once no member can report a nearer cause: a collective fails before the death
    /// that broke it is detected.
    pub(super) fn end_if_hopeless(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if let Phase::Recovering { waiting, hopeless: true, .. } = &self.state.phase
            && waiting.is_empty()
        {
            self.end_hopeless(now, commands);
        }
    }

    /// The same at once, with the known cause.
    pub(super) fn end_hopeless(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let Phase::Recovering { incident: Some(incident), hopeless: true, .. } = &self.state.phase else {
            return;
        };
        let cause = format!(
            "{FRUITLESS_GENERATIONS} generations in a row made no progress; the last one ended because {}",
            incident.cause
        );
        let incident = Incident { cause, ..incident.clone() };
        self.end(now, failed(incident, true), commands);
    }

    /// If all members of the ended generation are unreachable, they may still take steps together: no other generation forms until
    /// their ends are reported, or their grace without a coordinator is over.
    fn look_for_members(&mut self, now: Duration) {
        let Phase::Recovering { team, not_before, .. } = &mut self.state.phase else { return };
        let seen =
            |member: &WorkerId| self.state.roster.workers.get(member).is_some_and(super::Worker::alive);
        let unseen = team.members.iter().any(|member| self.state.roster.at_large.contains_key(member));
        if team.members.iter().any(seen) || !unseen {
            *not_before = now;
        } else if *not_before <= now {
            *not_before = now + self.settings.coordinator_grace;
        }
    }

    /// The first agent reconnects that holds a member of a generation that was lost as a whole: the coordinator itself was
    /// unreachable, and the generation has continued. The engine looks for its members as after a restart, unless a member is
    /// known to be dead or was replaced.
    pub(super) fn find_again(
        &mut self,
        now: Duration,
        agent: &AgentId,
        held: &[HeldWorker],
        commands: &mut Vec<Command>,
    ) {
        let Phase::Recovering { team, not_before, incident: Some(incident), hopeless: false, .. } =
            &self.state.phase
        else {
            return;
        };
        let is_away = |member: &WorkerId| {
            let holder = self.state.roster.at_large.get(member);
            holder.is_some_and(|holder| holder == agent || self.state.roster.lost.contains_key(holder))
        };
        let has_place = |member: &WorkerId| {
            self.state.roster.workers.get(member).is_some_and(|worker| self.has_room(worker.index))
        };
        if now >= *not_before
            || !held.iter().any(|held| team.members.contains(&held.worker))
            || !team.members.iter().all(|member| is_away(member) && has_place(member))
        {
            return;
        }
        let message = format!("{}: the unreachable workers have reconnected", incident.cause);
        Self::announce(RunUpdate::Warning { message }, commands);
        let team = team.clone();
        for member in &team.members {
            self.state.roster.at_large.remove(member);
            if let Some(worker) = self.state.roster.workers.get_mut(member) {
                worker.state = WorkerState::Unseen;
            }
        }
        let (ready, finished) = (BTreeSet::new(), BTreeMap::new());
        self.state.phase = Phase::Forming { team, ready, order: None, adopted: Some(now), finished };
    }

    /// A member has left its generation.
    pub(super) fn left(
        &mut self,
        now: Duration,
        worker: &WorkerId,
        kept: Option<Kept>,
        commands: &mut Vec<Command>,
    ) {
        let rank = self.rank(worker);
        match (&mut self.state.phase, rank) {
            (Phase::Recovering { waiting, .. }, _) => {
                if !waiting.remove(worker) {
                    self.state.counters.stale += 1;
                    return;
                }
                self.keep(worker, kept);
            }
            (Phase::Training { team, left, .. }, Some(rank)) => {
                left.insert(rank);
                let all = left.len() == team.world();
                self.keep(worker, kept);
                if all {
                    self.recover(now, None, commands);
                }
            }
            // Its collective failed before it was ready, and it left without an order.
            (Phase::Forming { .. }, Some(rank)) => {
                let cause = format!("{} left its generation", self.name(worker));
                let incident = Incident { rank: Some(rank), ..Incident::new(Nearness::Consequence, cause) };
                self.keep(worker, kept);
                self.recover(now, Some(incident), commands);
                if let Phase::Recovering { waiting, .. } = &mut self.state.phase {
                    waiting.remove(worker);
                }
            }
            _ => self.state.counters.stale += 1,
        }
    }

    fn keep(&mut self, worker: &WorkerId, kept: Option<Kept>) {
        match kept {
            Some(kept) => self.state.previous.kept.insert(worker.clone(), kept),
            None => self.state.previous.kept.remove(worker),
        };
    }

    pub(super) fn collective_failed(
        &mut self,
        now: Duration,
        rank: Rank,
        message: &str,
        commands: &mut Vec<Command>,
    ) {
        let cause = format!("a collective failed on {rank}: {message}");
        let incident = Incident { rank: Some(rank), ..Incident::new(Nearness::Consequence, cause) };
        self.recover(now, Some(incident), commands);
    }

    /// Marks a process as ended, or as presumed dead.
    pub(super) fn gone(&mut self, id: &WorkerId, cause: Option<ExitCause>) {
        self.state.previous.kept.remove(id);
        if let Some(worker) = self.state.roster.workers.get_mut(id) {
            worker.state = WorkerState::Gone { cause };
        }
    }

    /// Notes that a process was declared lost although it may still run: its agent must kill it when it reconnects.
    pub(super) fn lose_sight(&mut self, id: &WorkerId) {
        if let Some(worker) = self.state.roster.workers.get(id) {
            self.state.roster.at_large.insert(id.clone(), worker.agent.clone());
        }
    }

    /// Whether a worker has finished its work in the generation.
    fn is_through(&self, id: &WorkerId) -> bool {
        match (&self.state.phase, self.rank(id)) {
            (Phase::Training { finished, .. }, Some(rank)) => finished.contains_key(&rank),
            _ => false,
        }
    }
}

/// The outcome of a run that failed because of an incident.
pub(super) fn failed(incident: Incident, never_restart: bool) -> Outcome {
    let cause = incident.to_string();
    let Incident { hint, rank, log, .. } = incident;
    Outcome::Failed { cause, hint, rank, log, never_restart, resumable_at: None }
}

/// Advice for the usual cause of a death.
fn death_hint(cause: ExitCause) -> Option<String> {
    const KILLED: i32 = 9;
    matches!(cause, ExitCause::Signal(KILLED)).then(|| {
        "the kernel kills processes when memory runs out: see its log (dmesg), or lower `train.lanes` or `memory.chunk_clips`".to_owned()
    })
}
