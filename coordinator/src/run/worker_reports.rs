//! Handling of the reports of workers.

use std::time::Duration;

use longtake_shared::ids::{Rank, WorkerId};
use longtake_shared::protocol::{FailureScope, Identity, Progress, Stage, WorkerReport};

use super::command::Command;
use super::phase::Phase;
use super::{RunEngine, speaks_for};
use crate::updates::{Incident, Nearness, Outcome, RunUpdate};

impl RunEngine {
    /// Failures and warnings count in any generation: they concern the process, which cannot be confused with another. All other
    /// reports must belong to the live generation, or to the one that its members are leaving.
    pub(super) fn worker_reports(
        &mut self,
        now: Duration,
        worker: &WorkerId,
        identity: &Identity,
        report: WorkerReport,
        commands: &mut Vec<Command>,
    ) {
        match report {
            WorkerReport::Failed { message, hint, scope, log } => {
                let doing = self.state.roster.workers.get(worker).and_then(|worker| worker.doing);
                let rank = self.rank(worker);
                let nearness = Nearness::Cause;
                let incident = Incident { nearness, cause: message, hint, rank, doing, log };
                self.worker_failed(now, worker, incident, scope, commands);
            }
            WorkerReport::Warning(message) => {
                Self::announce(RunUpdate::Warning { message }, commands);
            }
            report if self.is_current(worker, identity) => {
                self.member_reports(now, worker, identity.rank, report, commands);
            }
            report if self.leaves(worker, identity) => match report {
                WorkerReport::Left { kept } => self.left(now, worker, kept, commands),
                // The last steps of an ended generation were taken nevertheless.
                WorkerReport::Progress(progress) => {
                    self.progress(worker, identity.rank, progress, commands);
                }
                _ => {}
            },
            _ => self.state.counters.stale += 1,
        }
    }

    /// Whether an identity belongs to the generation that its members are leaving.
    fn leaves(&self, worker: &WorkerId, identity: &Identity) -> bool {
        match &self.state.phase {
            Phase::Recovering { team, .. } => {
                identity.run == self.settings.run && speaks_for(team, worker, identity)
            }
            _ => false,
        }
    }

    fn worker_failed(
        &mut self,
        now: Duration,
        worker: &WorkerId,
        incident: Incident,
        scope: FailureScope,
        commands: &mut Vec<Command>,
    ) {
        if !self.state.is_alive(worker) {
            self.state.counters.stale += 1;
            return;
        }
        match scope {
            FailureScope::Run | FailureScope::Forever => {
                let Incident { cause, hint, rank, log, .. } = incident;
                let never_restart = scope == FailureScope::Forever;
                let failed = Outcome::Failed { cause, hint, rank, log, never_restart, resumable_at: None };
                self.end(now, failed, commands);
            }
            FailureScope::Worker => self.lose(now, worker, None, incident, commands),
            FailureScope::Checkpoint => {
                self.lose(now, worker, None, incident, commands);
                self.look_for_checkpoint(commands);
            }
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
            WorkerReport::Ready => self.ready(now, worker, rank, commands),
            WorkerReport::Progress(progress) => self.progress(worker, rank, progress, commands),
            WorkerReport::PartsSaved(saved) => self.parts_saved(worker, rank, saved, commands),
            WorkerReport::ValidationDone { step } => self.validation_done(worker, step, commands),
            WorkerReport::CollectiveFailed { message } => {
                self.collective_failed(now, rank, &message, commands);
            }
            WorkerReport::Left { kept } => self.left(now, worker, kept, commands),
            WorkerReport::Finished { step, ending } => self.finished(now, rank, (step, ending), commands),
            // Failures and warnings were handled before; the driver collects detections.
            WorkerReport::Failed { .. } | WorkerReport::Warning(_) | WorkerReport::Detections(_) => {}
        }
    }

    /// Progress of rank 0 is the run's, since its numbers are over all ranks; of a stage whose units are shared out, the run
    /// has done the sum. A stage begins with rank 0's first report of it.
    fn progress(
        &mut self,
        worker: &WorkerId,
        rank: Rank,
        mut progress: Progress,
        commands: &mut Vec<Command>,
    ) {
        let (stage, total) = (progress.stage, progress.total);
        let begins = self.state.progress.newest.as_ref().map(|known| known.stage) != Some(stage);
        if rank == Rank(0) {
            self.state.progress.patience.reached(stage, progress.done);
            if begins && stage.is_shared_out() {
                // What the others had done in the last stage of this kind.
                self.state.roster.workers.values_mut().for_each(|worker| worker.done = None);
            }
        }
        if let Some(known) = self.state.roster.workers.get_mut(worker) {
            known.done = Some((stage, progress.done));
        }
        if rank != Rank(0) && (begins || !stage.is_shared_out()) {
            return;
        }
        if stage.is_shared_out() {
            progress.done = self.done_by_all(stage).min(total);
        }
        if begins {
            Self::announce(RunUpdate::Stage { stage, total, done: progress.done }, commands);
        }
        Self::announce(RunUpdate::Progress(progress.clone()), commands);
        self.state.progress.newest = Some(progress);
    }

    /// Units of a stage that the workers which live have done together.
    fn done_by_all(&self, stage: Stage) -> u64 {
        let workers = self.state.roster.workers.values().filter(|worker| worker.alive());
        workers.filter_map(|worker| worker.done).filter(|(at, _)| *at == stage).map(|(_, done)| done).sum()
    }
}
