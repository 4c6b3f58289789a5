//! The end of a run: the first cause is the outcome, workers are dismissed, and a commit in flight is awaited.

use std::collections::BTreeMap;
use std::time::Duration;

use longtake_shared::ids::{Rank, Step, WorkerId};
use longtake_shared::protocol::{Ending, Order};

use super::RunEngine;
use super::command::Command;
use super::membership::WorkerState;
use super::phase::Phase;
use super::record::Record;
use crate::updates::{Outcome, RunUpdate};

impl RunEngine {
    /// A rank has finished its work in the generation.
    pub(super) fn finished(
        &mut self,
        now: Duration,
        rank: Rank,
        (step, ending): (Step, Ending),
        commands: &mut Vec<Command>,
    ) {
        if let Phase::Training { finished, .. } | Phase::Forming { finished, .. } = &mut self.state.phase {
            finished.insert(rank, (step, ending));
        }
        self.end_where_all_are_through(now, commands);
    }

    pub(super) fn end_where_all_are_through(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let Phase::Training { team, finished, .. } = &self.state.phase else { return };
        if finished.len() < team.world() {
            return;
        }
        let outcome = outcome_of(finished);
        self.end(now, outcome, commands);
    }

    /// A run whose checkpoint is not in the chain has failed, even if its workers had finished.
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

    /// Ends the run with a failure that belongs to no single worker.
    pub(super) fn fail(
        &mut self,
        now: Duration,
        cause: String,
        hint: Option<String>,
        commands: &mut Vec<Command>,
    ) {
        self.end(now, failure(cause, hint), commands);
    }

    /// Dismisses all workers. The first outcome stands: later ones are usually its consequence.
    pub(super) fn end(&mut self, now: Duration, outcome: Outcome, commands: &mut Vec<Command>) {
        if matches!(self.state.phase, Phase::Ending { .. } | Phase::Finished { .. }) {
            return;
        }
        let joined: Vec<WorkerId> = self
            .state
            .roster
            .workers
            .iter()
            .filter(|(_, worker)| matches!(worker.state, WorkerState::Joined { .. }))
            .map(|(id, _)| id.clone())
            .collect();
        for worker in
            self.state.roster.workers.values_mut().filter(|worker| worker.state == WorkerState::Unseen)
        {
            worker.state = WorkerState::Gone { cause: None };
        }
        if let (Outcome::Failed { cause, .. }, Some(team)) = (&outcome, self.state.phase.team()) {
            let members = team.members.iter().filter(|member| joined.contains(member)).cloned().collect();
            self.tell(members, Order::Abort { reason: cause.clone() }, commands);
        }
        self.state.saves.forget_gathered();
        self.state.validation.running = None;
        self.state.phase = Phase::Ending { outcome, since: now, killed: false };
        self.tell(joined, Order::Shutdown, commands);
    }

    /// Kills the remaining workers, once.
    pub(super) fn kill(&mut self, commands: &mut Vec<Command>) {
        if let Phase::Ending { killed, .. } = &mut self.state.phase
            && !std::mem::replace(killed, true)
        {
            commands.push(Command::KillWorkers);
        }
    }

    /// Finishes the run once no worker is left and no commit is in flight.
    pub(super) fn settle(&mut self, commands: &mut Vec<Command>) {
        let Phase::Ending { outcome, .. } = &self.state.phase else { return };
        if self.state.saves.in_flight().is_some()
            || self.state.roster.workers.values().any(super::Worker::alive)
        {
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
}

/// The outcome of a run whose ranks have all finished.
fn outcome_of(finished: &BTreeMap<Rank, (Step, Ending)>) -> Outcome {
    let stopped = finished.values().find(|(_, ending)| *ending == Ending::Stopped);
    stopped.map_or(Outcome::Done, |(step, _)| Outcome::Preempted { step: *step })
}

/// The outcome of a failure that belongs to no single worker.
fn failure(cause: String, hint: Option<String>) -> Outcome {
    let (rank, log) = (None, Vec::new());
    Outcome::Failed { cause, hint, rank, log, never_restart: false, resumable_at: None }
}
