//! What the passing of time means: leases, deadlines, notices.

use std::time::Duration;

use longtake_shared::ids::WorkerId;
use longtake_shared::protocol::stamp::StepPhase;
use longtake_shared::units::Seconds;

use super::command::Command;
use super::incident::{Incident, Nearness};
use super::membership::{self, AgentId, Lease, Worker, WorkerState};
use super::phase::Phase;
use super::quorum::Quorum;
use super::settings::NOTICE_EVERY;
use super::{RunEngine, RunUpdate};
use crate::updates::Outcome;

impl RunEngine {
    /// A coordinator that was stopped, or whose machine slept, has heard nobody meanwhile, and its clock says nothing of how
    /// long the others have waited: what it waits for is prolonged, whatever event comes first.
    pub(super) fn wake(&mut self, now: Duration) {
        let overslept = membership::overslept(self.state.last_tick, now, self.settings.lease);
        if overslept.is_zero() {
            return;
        }
        self.state.last_tick = now;
        for agent in self.state.agents.values_mut() {
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
        self.state.last_tick = now;
        let (lease, grace) = (self.settings.lease, self.settings.reconnect_grace());
        let lost: Vec<(AgentId, Duration)> = self
            .state
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
        self.say_who_is_missing(now, commands);
    }

    fn judge_deadlines(&mut self, now: Duration, commands: &mut Vec<Command>) {
        match &self.state.phase {
            Phase::Gathering { since } if now.saturating_sub(*since) > self.settings.gather_timeout => {
                self.nobody_came(now, commands);
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
                // Whoever should have told that they are dead is not there to tell.
                for worker in self.state.workers.values_mut().filter(|worker| worker.alive()) {
                    worker.state = WorkerState::Gone { cause: None };
                }
            }
            _ => {}
        }
    }

    /// A process that was started and does not connect is given up, and another one is started in its place.
    fn judge_starts(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let over = match self.state.phase {
            // It is itself over then.
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

    /// Whether the run, under this coordinator or an earlier one, has got somewhere: then it waits for workers as long as it
    /// takes.
    fn has_trained(&self) -> bool {
        self.state.trained || self.settings.started_from.is_some()
    }

    fn nobody_came(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let present = self.joined().count();
        if present >= self.settings.fewest || self.has_trained() {
            return;
        }
        let cause = format!(
            "only {present} of {} workers came within {:.0} s",
            self.settings.fewest,
            self.settings.gather_timeout.as_secs_f64()
        );
        let hint = "see the workers' logs, or raise `cluster.gather_timeout`".to_owned();
        self.fail(now, cause, Some(hint), commands);
    }

    /// A generation of an earlier coordinator: who is not back soon after the others is lost. Where nobody is back, they may
    /// be stepping out of sight.
    fn judge_adoption(&mut self, now: Duration, since: Duration, commands: &mut Vec<Command>) {
        let Some(team) = self.state.phase.team() else { return };
        let waited = now.saturating_sub(since);
        let unseen: Vec<WorkerId> = team
            .members
            .iter()
            .filter(|member| self.state.workers[*member].state == WorkerState::Unseen)
            .cloned()
            .collect();
        let none_is_back = unseen.len() == team.world();
        if none_is_back && waited > self.settings.coordinator_grace {
            for member in &unseen {
                self.gone(member, None);
            }
            self.state.phase = Phase::Gathering { since: now };
            self.state.owned.clear();
            self.start_workers(now, commands);
        } else if !none_is_back && waited > self.settings.adoption_grace() {
            if unseen.is_empty() {
                // All are there, and one has missed that the generation was to form.
                let cause = "not all workers of the last generation had come to train in it".to_owned();
                self.recover(now, Some(Incident::new(Nearness::Consequence, cause)), commands);
            }
            for member in unseen {
                self.lose_sight(&member);
                let cause = format!("{} did not come back", self.name(&member));
                self.lose(now, &member, None, Incident::new(Nearness::Cause, cause), commands);
            }
        }
    }

    /// All members wait in a collective that does not end, and nobody is known to be gone.
    fn judge_stall(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let Some(team) = self.state.phase.team() else { return };
        let deadline = self.settings.phase_deadline.as_secs_f64();
        let waits = |member: &WorkerId| {
            let doing = self.state.workers.get(member).and_then(|worker| worker.doing);
            doing.is_some_and(|doing| doing.phase == StepPhase::Reduce && doing.since > Seconds(deadline))
        };
        if team.world() > 1 && team.members.iter().all(waits) {
            let cause = format!("all workers have waited in a collective for more than {deadline:.0} s");
            self.recover(now, Some(Incident::new(Nearness::Consequence, cause)), commands);
        }
    }

    fn does_not_leave(&mut self, now: Duration, member: &WorkerId, commands: &mut Vec<Command>) {
        let Some(worker) = self.state.workers.get(member) else { return };
        commands.push(Command::KillWorker { agent: worker.agent.clone(), worker: member.clone() });
        self.lose_sight(member);
        let cause = format!("{} did not leave its generation", self.name(member));
        self.lose(now, member, None, Incident::new(Nearness::Consequence, cause), commands);
    }

    /// What is not saved within the grace is left behind: a scheduler would kill it all the same.
    fn judge_stop(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let late = |since: Duration| now.saturating_sub(since) > self.settings.stop_grace;
        let over = matches!(self.state.phase, Phase::Ending { .. } | Phase::Finished { .. });
        if over || !self.state.stop_since.is_some_and(late) {
            return;
        }
        // Nothing is left to save then.
        self.end_hopeless(now, commands);
        if matches!(self.state.phase, Phase::Ending { .. }) {
            self.kill(commands);
            return;
        }
        let step = self.resume_point().step().unwrap_or_default();
        let message = format!(
            "what was done after {step} could not be saved within {:.0} s (`cluster.stop_grace`)",
            self.settings.stop_grace.as_secs_f64()
        );
        Self::announce(RunUpdate::Warning { message }, commands);
        self.end(now, Outcome::Preempted { step }, commands);
        self.kill(commands);
    }

    fn say_who_is_missing(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let waits_since = match &self.state.phase {
            Phase::Gathering { since }
            | Phase::Forming { adopted: Some(since), .. }
            | Phase::Recovering { since, .. } => *since,
            _ => return,
        };
        if now.saturating_sub(self.state.last_notice.max(waits_since)) < NOTICE_EVERY {
            return;
        }
        let needed = match self.quorum(now) {
            Some(Quorum::WorkersMissing { needed, .. }) => needed,
            _ => self.settings.fewest,
        };
        self.state.last_notice = now;
        let (present, missing) = (self.joined().count(), self.missing());
        Self::announce(RunUpdate::Waiting { present, needed, missing }, commands);
    }
}
