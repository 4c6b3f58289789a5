//! Reactions to the passing of time: leases, deadlines and notices.

use std::time::Duration;

use longtake_shared::ids::{AgentId, WorkerId};
use longtake_shared::protocol::stamp::StepPhase;
use longtake_shared::units::Seconds;

use super::RunEngine;
use super::command::Command;
use super::membership::{self, Lease, Worker, WorkerState};
use super::phase::Phase;
use super::quorum::Quorum;
use super::settings::NOTICE_EVERY;
use crate::updates::{Incident, Nearness, Outcome, RunUpdate};

impl RunEngine {
    /// After the coordinator was suspended, all its deadlines are extended by that time, whatever event comes first: it received
    /// no messages meanwhile.
    pub(super) fn wake(&mut self, now: Duration) {
        let overslept = membership::overslept(self.state.timers.last_tick, now, self.settings.lease);
        if overslept.is_zero() {
            return;
        }
        self.state.timers.last_tick = now;
        for agent in self.state.roster.agents.values_mut() {
            agent.heard = (agent.heard + overslept).min(now);
            agent.broken = agent.broken.map(|since| (since + overslept).min(now));
        }
        match &mut self.state.phase {
            Phase::Gathering { since } | Phase::Forming { adopted: Some(since), .. } => {
                *since = (*since + overslept).min(now);
            }
            Phase::Recovering { since, not_before, .. } => {
                *since = (*since + overslept).min(now);
                *not_before += overslept;
            }
            _ => {}
        }
    }

    pub(super) fn tick(&mut self, now: Duration, commands: &mut Vec<Command>) {
        self.state.timers.last_tick = now;
        let (lease, grace) = (self.settings.lease, self.settings.reconnect_grace());
        let lost: Vec<(AgentId, Duration)> = self
            .state
            .roster
            .agents
            .iter()
            .filter_map(|(id, agent)| match membership::lease(agent, now, lease, grace) {
                Lease::Expired { silent } => Some((id.clone(), silent)),
                Lease::Held => None,
            })
            .collect();
        for (agent, silent) in lost {
            self.agent_lost(now, &agent, silent, commands);
        }
        self.judge_starts(now, commands);
        self.judge_deadlines(now, commands);
        self.judge_stop(now, commands);
        self.report_missing(now, commands);
    }

    fn judge_deadlines(&mut self, now: Duration, commands: &mut Vec<Command>) {
        match &self.state.phase {
            Phase::Gathering { since } if now.saturating_sub(*since) > self.settings.gather_timeout => {
                self.too_few_joined(now, commands);
            }
            Phase::Forming { adopted: Some(since), .. } => self.judge_adoption(now, *since, commands),
            Phase::Training { .. } => self.judge_stall(now, commands),
            Phase::Recovering { since, waiting, .. }
                if now.saturating_sub(*since) > self.settings.leaving_grace() =>
            {
                for member in waiting.clone() {
                    self.does_not_leave(now, &member, commands);
                }
            }
            Phase::Ending { since, killed: false, .. }
                if now.saturating_sub(*since) > self.settings.ending_grace() =>
            {
                self.kill(commands);
            }
            Phase::Ending { since, killed: true, .. }
                if now.saturating_sub(*since) > self.settings.ending_grace() * 2 =>
            {
                // The agents that should report their ends are lost.
                for worker in self.state.roster.workers.values_mut().filter(|worker| worker.alive()) {
                    worker.state = WorkerState::Gone { cause: None };
                }
            }
            _ => {}
        }
    }

    /// A started process that does not connect in time is declared lost and replaced.
    fn judge_starts(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let over = match self.state.phase {
            // The run itself ends then.
            Phase::Gathering { .. } => !self.has_trained(),
            Phase::Ending { .. } | Phase::Finished { .. } => true,
            _ => false,
        };
        if over {
            return;
        }
        let is_late = |worker: &Worker| {
            worker.state == WorkerState::Starting
                && now.saturating_sub(worker.since) > self.settings.gather_timeout
        };
        let late: Vec<(WorkerId, AgentId)> = self
            .state
            .roster
            .workers
            .iter()
            .filter(|(_, worker)| is_late(worker))
            .map(|(id, worker)| (id.clone(), worker.agent.clone()))
            .collect();
        for (worker, agent) in late {
            let cause = format!("{} did not connect", self.name(&worker));
            commands.push(Command::KillWorker { agent, worker: worker.clone() });
            let incident = Incident::new(Nearness::Cause, cause);
            self.unreachable(now, &[worker], incident, commands);
        }
    }

    /// Whether the run has trained, under this coordinator or an earlier one: then it waits for workers without limit.
    fn has_trained(&self) -> bool {
        self.state.progress.trained || self.settings.started_from.is_some()
    }

    fn too_few_joined(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let present = self.joined().count();
        if present >= self.settings.fewest || self.has_trained() {
            return;
        }
        let cause = format!(
            "only {present} of {} workers connected within {:.0} s",
            self.settings.fewest,
            self.settings.gather_timeout.as_secs_f64()
        );
        let hint = "see the workers' logs, or raise `cluster.gather_timeout`".to_owned();
        self.fail(now, cause, Some(hint), commands);
    }

    /// The search for a generation of an earlier coordinator: a member that does not reconnect soon after the first is lost. While
    /// none has reconnected, they may still take steps together.
    fn judge_adoption(&mut self, now: Duration, since: Duration, commands: &mut Vec<Command>) {
        let Some(team) = self.state.phase.team() else { return };
        let waited = now.saturating_sub(since);
        let unseen: Vec<WorkerId> = team
            .members
            .iter()
            .filter(|member| self.state.roster.workers[*member].state == WorkerState::Unseen)
            .cloned()
            .collect();
        let none_is_back = unseen.len() == team.world();
        if none_is_back && waited > self.settings.coordinator_grace {
            for member in &unseen {
                self.gone(member, None);
            }
            self.state.phase = Phase::Gathering { since: now };
            self.state.previous.owned.clear();
            self.start_workers(now, commands);
        } else if !none_is_back && waited > self.settings.adoption_grace() {
            if unseen.is_empty() {
                // All have reconnected, but one had missed the order to form the generation.
                let cause = "not all workers of the last generation had started to train".to_owned();
                self.recover(now, Some(Incident::new(Nearness::Consequence, cause)), commands);
            }
            for member in unseen {
                self.lose_sight(&member);
                let cause = format!("{} did not reconnect", self.name(&member));
                self.lose(now, &member, None, Incident::new(Nearness::Cause, cause), commands);
            }
        }
    }

    /// All members wait in a collective that does not end, although none is known to be lost.
    fn judge_stall(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let Some(team) = self.state.phase.team() else { return };
        let deadline = self.settings.phase_deadline.as_secs_f64();
        let waits = |member: &WorkerId| {
            let doing = self.state.roster.workers.get(member).and_then(|worker| worker.doing);
            doing.is_some_and(|doing| doing.phase == StepPhase::Reduce && doing.since > Seconds(deadline))
        };
        if team.world() > 1 && team.members.iter().all(waits) {
            let cause = format!("all workers have waited in a collective for more than {deadline:.0} s");
            self.recover(now, Some(Incident::new(Nearness::Consequence, cause)), commands);
        }
    }

    fn does_not_leave(&mut self, now: Duration, member: &WorkerId, commands: &mut Vec<Command>) {
        let Some(worker) = self.state.roster.workers.get(member) else { return };
        commands.push(Command::KillWorker { agent: worker.agent.clone(), worker: member.clone() });
        self.lose_sight(member);
        let cause = format!("{} did not leave its generation", self.name(member));
        self.lose(now, member, None, Incident::new(Nearness::Consequence, cause), commands);
    }

    /// Ends a run that could not save within the grace: a scheduler would kill it soon.
    fn judge_stop(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let late = |since: Duration| now.saturating_sub(since) > self.settings.stop_grace;
        let over = matches!(self.state.phase, Phase::Ending { .. } | Phase::Finished { .. });
        if over || !self.state.requests.stop_since.is_some_and(late) {
            return;
        }
        // An exhausted run has nothing to save.
        self.end_hopeless(now, commands);
        if matches!(self.state.phase, Phase::Ending { .. }) {
            self.kill(commands);
            return;
        }
        let step = self.resume_point().step().unwrap_or_default();
        let message = format!(
            "the work after {step} could not be saved within {:.0} s (`cluster.stop_grace`)",
            self.settings.stop_grace.as_secs_f64()
        );
        Self::announce(RunUpdate::Warning { message }, commands);
        self.end(now, Outcome::Preempted { step }, commands);
        self.kill(commands);
    }

    fn report_missing(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let waits_since = match &self.state.phase {
            Phase::Gathering { since }
            | Phase::Forming { adopted: Some(since), .. }
            | Phase::Recovering { since, .. } => *since,
            _ => return,
        };
        if now.saturating_sub(self.state.timers.last_notice.max(waits_since)) < NOTICE_EVERY {
            return;
        }
        let needed = match self.quorum(now) {
            Some(Quorum::WorkersMissing { needed, .. }) => needed,
            _ => self.settings.fewest,
        };
        self.state.timers.last_notice = now;
        let (present, missing) = (self.joined().count(), self.missing());
        Self::announce(RunUpdate::Waiting { present, needed, missing }, commands);
    }
}
