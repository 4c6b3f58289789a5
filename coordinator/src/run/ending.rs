//! How a run comes to its end: the first cause is the outcome, workers are let go, a commit in flight is waited for.

use std::time::Duration;

use longtake_shared::hint::ExitCode;
use longtake_shared::ids::{Rank, WorkerId};
use longtake_shared::protocol::ExitCause;

use super::command::{Command, Order};
use super::membership::{AgentId, WorkerState};
use super::phase::Phase;
use super::recovery::ResumePoint;
use super::{RunEngine, RunUpdate};
use crate::journal::Record;
use crate::updates::Outcome;

impl RunEngine {
    pub(super) fn worker_exited(
        &mut self,
        now: Duration,
        id: &WorkerId,
        cause: ExitCause,
        log: Vec<String>,
        commands: &mut Vec<Command>,
    ) {
        let rank = self.rank(id);
        let Some(worker) = self.state.workers.get_mut(id).filter(|worker| worker.alive()) else {
            self.state.stale += 1;
            return;
        };
        let connected = worker.ring_address().is_some();
        worker.state = WorkerState::Gone { cause: Some(cause) };
        let index = worker.index;
        let was_through = match (&self.state.phase, rank) {
            (Phase::Training { finished, .. }, Some(rank)) => finished.contains_key(&rank),
            _ => false,
        };
        if was_through && cause == ExitCause::Code(0) {
            return;
        }
        let who = rank.map_or_else(|| format!("worker {index}"), |rank| format!("worker {index} ({rank})"));
        let verb = if matches!(cause, ExitCause::Signal(_)) { "was " } else { "" };
        let when = if connected { "" } else { " before it connected" };
        let failed = Outcome::Failed {
            cause: format!("{who} {verb}{cause}{when}"),
            hint: death_hint(cause),
            rank,
            log,
            never_restart: cause == ExitCause::Code(i32::from(ExitCode::NeverRestart.code())),
            resumable_at: None,
        };
        self.end(now, failed, commands);
    }

    /// An agent kills its workers when it ends, so nobody is left to wait for.
    pub(super) fn agent_disconnected(&mut self, id: &AgentId) {
        if matches!(self.state.phase, Phase::Ending { .. }) {
            for worker in
                self.state.workers.values_mut().filter(|worker| worker.agent == *id && worker.alive())
            {
                worker.state = WorkerState::Gone { cause: None };
            }
        }
    }

    pub(super) fn start_failed(
        &mut self,
        now: Duration,
        id: &WorkerId,
        message: &str,
        commands: &mut Vec<Command>,
    ) {
        let Some(worker) = self.state.workers.get_mut(id) else { return };
        worker.state = WorkerState::Gone { cause: None };
        let cause = format!("worker {} could not be started: {message}", worker.index);
        self.fail(now, cause, None, commands);
    }

    /// A run whose checkpoint is not in the chain has failed, even where its workers were through.
    pub(super) fn commit_failed(
        &mut self,
        now: Duration,
        message: &str,
        hint: Option<String>,
        commands: &mut Vec<Command>,
    ) {
        self.state.saves.failed();
        let cause = format!("the checkpoint was not saved: {message}");
        if let Phase::Ending { outcome: outcome @ (Outcome::Done | Outcome::Preempted { .. }), .. } =
            &mut self.state.phase
        {
            *outcome = failure(cause, hint);
        } else {
            self.end(now, failure(cause, hint), commands);
        }
    }

    /// Ends the run with a failure that is no single worker's.
    pub(super) fn fail(
        &mut self,
        now: Duration,
        cause: String,
        hint: Option<String>,
        commands: &mut Vec<Command>,
    ) {
        self.end(now, failure(cause, hint), commands);
    }

    /// Lets everyone go. The first outcome stands: what comes after it is mostly its consequence.
    pub(super) fn end(&mut self, now: Duration, outcome: Outcome, commands: &mut Vec<Command>) {
        if matches!(self.state.phase, Phase::Ending { .. } | Phase::Finished { .. }) {
            return;
        }
        let joined: Vec<WorkerId> = self
            .state
            .workers
            .iter()
            .filter(|(_, worker)| matches!(worker.state, WorkerState::Joined { .. }))
            .map(|(id, _)| id.clone())
            .collect();
        if let (Outcome::Failed { cause, .. }, Some(team)) = (&outcome, self.state.phase.team()) {
            let members = team.members.iter().filter(|member| joined.contains(member)).cloned().collect();
            self.tell(members, Order::Abort { reason: cause.clone() }, commands);
        }
        self.state.saves.forget_gathered();
        self.state.validation = None;
        self.state.phase = Phase::Ending { outcome, since: now, killed: false };
        self.tell(joined, Order::Shutdown, commands);
    }

    /// Kills what is left, once.
    pub(super) fn kill(&mut self, commands: &mut Vec<Command>) {
        if let Phase::Ending { killed, .. } = &mut self.state.phase
            && !std::mem::replace(killed, true)
        {
            commands.push(Command::KillWorkers);
        }
    }

    /// The run is over when nobody is left and nothing is on its way into the chain.
    pub(super) fn settle(&mut self, commands: &mut Vec<Command>) {
        let Phase::Ending { outcome, .. } = &self.state.phase else { return };
        if self.state.saves.in_flight().is_some() || self.state.workers.values().any(super::Worker::alive) {
            return;
        }
        let mut outcome = outcome.clone();
        if let Outcome::Failed { resumable_at, .. } = &mut outcome {
            *resumable_at = self.resume_point().step();
        }
        self.state.phase = Phase::Finished { outcome: outcome.clone() };
        commands.push(Command::Journal(Record::Ended { outcome: outcome.clone() }));
        commands.push(Command::Announce(RunUpdate::Finished { outcome: outcome.clone() }));
        commands.push(Command::Finish(outcome));
    }

    pub(super) fn resume_point(&self) -> ResumePoint {
        ResumePoint::decide(self.settings.started_from, self.state.saves.newest())
    }

    pub(super) fn rank(&self, worker: &WorkerId) -> Option<Rank> {
        self.state.phase.team().and_then(|team| team.rank(worker))
    }
}

/// A failure that is no single worker's.
fn failure(cause: String, hint: Option<String>) -> Outcome {
    let (rank, log) = (None, Vec::new());
    Outcome::Failed { cause, hint, rank, log, never_restart: false, resumable_at: None }
}

/// What a death mostly means.
fn death_hint(cause: ExitCause) -> Option<String> {
    match cause {
        ExitCause::Signal(9) => Some(
            "the kernel kills with signal 9 when memory runs out: see `dmesg`, and `longtake plan` for what fits"
                .to_owned(),
        ),
        ExitCause::Signal(_) | ExitCause::Code(_) => None,
    }
}
