//! What the engine does about what workers tell.

use std::collections::BTreeMap;
use std::time::Duration;

use longtake_shared::ids::{Rank, Step, WorkerId};
use longtake_shared::protocol::Ending;

use super::command::{Command, Order};
use super::event::{Identity, WorkerReport};
use super::phase::{Phase, Suspicion};
use super::{RunEngine, RunUpdate};
use crate::updates::{Outcome, Progress};

impl RunEngine {
    /// Failures and warnings count in any generation: a worker process has only one life, so they cannot be stale.
    /// Everything else must speak for the live generation.
    pub(super) fn worker_reports(
        &mut self,
        now: Duration,
        worker: &WorkerId,
        identity: &Identity,
        report: WorkerReport,
        commands: &mut Vec<Command>,
    ) {
        match report {
            WorkerReport::Failed { message, hint, never_restart, log, .. } => {
                if self.state.workers.get(worker).is_some_and(super::Worker::alive) {
                    let (rank, resumable_at) = (self.rank(worker), None);
                    let failed =
                        Outcome::Failed { cause: message, hint, rank, log, never_restart, resumable_at };
                    self.end(now, failed, commands);
                }
            }
            WorkerReport::Warning(message) => {
                commands.push(Command::Announce(RunUpdate::Warning { message }));
            }
            report if self.is_current(worker, identity) => {
                self.member_reports(now, worker, identity.rank, report, commands);
            }
            _ => self.state.stale += 1,
        }
    }

    fn member_reports(
        &mut self,
        now: Duration,
        worker: &WorkerId,
        rank: Rank,
        report: WorkerReport,
        commands: &mut Vec<Command>,
    ) {
        match report {
            WorkerReport::Ready => self.ready(rank, commands),
            WorkerReport::Progress(progress) => self.progress(worker, rank, progress, commands),
            WorkerReport::PartsSaved(saved) => {
                self.state.saves.add(rank, saved);
                self.try_commit(commands);
            }
            WorkerReport::ValidationDone { step } => self.validation_done(worker, step, commands),
            WorkerReport::CollectiveFailed { message } => self.collective_failed(now, rank, message),
            WorkerReport::Finished { step, ending } => self.finished(now, rank, step, ending, commands),
            WorkerReport::Left { .. } | WorkerReport::Failed { .. } | WorkerReport::Warning(_) => {}
        }
    }

    fn ready(&mut self, rank: Rank, commands: &mut Vec<Command>) {
        let Phase::Forming { team, ready } = &mut self.state.phase else { return };
        ready.insert(rank);
        if ready.len() < team.world() {
            return;
        }
        let team = team.clone();
        let (generation, world) = (team.generation, team.world());
        self.state.phase = Phase::Training { team, finished: BTreeMap::new(), suspicion: None };
        commands.push(Command::Announce(RunUpdate::Formed { generation, world }));
        self.tell_team(Order::Train, commands);
        if self.state.flags.checkpoint {
            self.tell_flags(commands);
        }
    }

    /// Progress of rank 0 is the run's: its numbers are over all ranks.
    fn progress(&mut self, worker: &WorkerId, rank: Rank, progress: Progress, commands: &mut Vec<Command>) {
        if let Some(known) = self.state.workers.get_mut(worker) {
            known.done = Some((progress.stage, progress.done));
        }
        if rank != Rank(0) {
            return;
        }
        let known_stage = self.state.progress.as_ref().map(|progress| progress.stage);
        if known_stage != Some(progress.stage) {
            let Progress { stage, total, done, .. } = progress;
            commands.push(Command::Announce(RunUpdate::Stage { stage, total, done }));
        }
        commands.push(Command::Announce(RunUpdate::Progress(progress.clone())));
        self.state.progress = Some(progress);
    }

    fn validation_done(&mut self, worker: &WorkerId, step: Step, commands: &mut Vec<Command>) {
        let Some(team) = self.state.phase.team() else { return };
        let (world, generation) = (team.world(), team.generation);
        let (known, done) =
            self.state.validation.get_or_insert_with(|| (step, std::collections::BTreeSet::new()));
        if *known != step {
            // A rank that validates another step than its peers has left the agreed schedule: nothing it says can be merged.
            self.state.stale += 1;
            return;
        }
        done.insert(worker.clone());
        if done.len() == world {
            self.state.validation = None;
            commands.push(Command::ComputeReport { generation, step });
        }
    }

    fn collective_failed(&mut self, now: Duration, rank: Rank, message: String) {
        if let Phase::Training { suspicion, .. } = &mut self.state.phase {
            suspicion.get_or_insert(Suspicion { rank, message, since: now });
        }
    }

    fn finished(
        &mut self,
        now: Duration,
        rank: Rank,
        step: Step,
        ending: Ending,
        commands: &mut Vec<Command>,
    ) {
        let Phase::Training { team, finished, .. } = &mut self.state.phase else { return };
        finished.insert(rank, (step, ending));
        if finished.len() < team.world() {
            return;
        }
        let stopped = finished.values().any(|(_, ending)| *ending == Ending::Stopped);
        let outcome = if stopped { Outcome::Preempted { step } } else { Outcome::Done };
        self.end(now, outcome, commands);
    }
}
