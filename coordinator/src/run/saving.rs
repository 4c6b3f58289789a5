//! Commits of checkpoints, and reports of validations.

use longtake_shared::ids::{Rank, Step, WorkerId};
use longtake_shared::protocol::{Order, SavedParts};

use super::RunEngine;
use super::command::Command;
use super::commit::{Committed, Decision, Moment};
use super::event::ReportMade;
use super::phase::Phase;
use super::record::Record;
use crate::updates::RunUpdate;

impl RunEngine {
    /// A rank's parts are durable. If the checkpoint is already committed, the worker is only told so.
    pub(super) fn parts_saved(
        &mut self,
        worker: &WorkerId,
        rank: Rank,
        saved: SavedParts,
        commands: &mut Vec<Command>,
    ) {
        let (stage, step) = (saved.stage, saved.step);
        let adopted = self.state.phase.team().is_some_and(|team| team.incarnation < self.state.incarnation);
        let by_predecessor = adopted
            && self.state.saves.newest().is_none()
            && self.settings.started_from >= Some((stage, step));
        if by_predecessor || self.state.saves.is_done((stage, step)) {
            // The workers learn of a commit in flight when it is complete.
            if self.state.saves.in_flight() != Some((stage, step)) {
                let order = Order::Committed { stage, step, sequence: 0 };
                self.tell(vec![worker.clone()], order, commands);
            }
            return;
        }
        self.state.saves.add(rank, saved);
        self.try_commit(commands);
    }

    pub(super) fn committed(&mut self, committed: Committed, commands: &mut Vec<Command>) {
        if !self.state.saves.committed(committed) {
            self.state.counters.stale += 1;
            return;
        }
        let Committed { stage, step, sequence } = committed;
        self.state.progress.patience.checkpointed();
        commands.push(Command::Journal(Record::Committed(committed)));
        Self::announce(RunUpdate::Saved { step, sequence }, commands);
        self.tell_team(Order::Committed { stage, step, sequence }, commands);
        if self.state.requests.flags.checkpoint {
            self.state.requests.flags.checkpoint = false;
            self.tell_flags(commands);
        }
        self.try_commit(commands);
    }

    /// A worker could not read its checkpoint: no generation forms before an intact one is found.
    pub(super) fn look_for_checkpoint(&mut self, commands: &mut Vec<Command>) {
        let over = matches!(self.state.phase, Phase::Ending { .. } | Phase::Finished { .. });
        if !over && self.state.saves.start_search() {
            commands.push(Command::FindCheckpoint);
        }
    }

    /// The run continues from this checkpoint, as if it had been started there.
    pub(super) fn checkpoint_found(
        &mut self,
        found: Option<Moment>,
        passed_over: Vec<String>,
        commands: &mut Vec<Command>,
    ) {
        self.state.saves.end_search();
        self.settings.started_from = found;
        self.state.saves.forget_newest();
        for damage in passed_over {
            let message = format!("{damage}: the checkpoint that needs it is passed over");
            Self::announce(RunUpdate::Warning { message }, commands);
        }
    }

    fn try_commit(&mut self, commands: &mut Vec<Command>) {
        let Some(team) = self.state.phase.team() else { return };
        let Decision::Commit(moment) = self.state.saves.decide(team.world()) else { return };
        if let Some(request) = self.state.saves.start(moment, self.state.incarnation, team) {
            commands.push(Command::CommitCheckpoint(request));
        }
    }

    pub(super) fn validation_done(&mut self, worker: &WorkerId, step: Step, commands: &mut Vec<Command>) {
        let Some(team) = self.state.phase.team() else { return };
        let (world, generation) = (team.world(), team.generation);
        let (known, done) =
            self.state.validation.running.get_or_insert_with(|| (step, std::collections::BTreeSet::new()));
        if *known != step {
            // A rank that validates another step than its peers has left the agreed schedule: its results cannot be merged.
            self.state.counters.stale += 1;
            return;
        }
        done.insert(worker.clone());
        if done.len() == world {
            self.state.validation.running = None;
            self.state.validation.reporting = Some(generation);
            commands.push(Command::ComputeReport { generation, step });
        }
    }

    /// The report of an ended generation still goes to the observers; the next generation validates again.
    pub(super) fn report_made(&mut self, made: ReportMade, commands: &mut Vec<Command>) {
        let ReportMade { step, epoch, average_map, best, report } = made;
        Self::announce(RunUpdate::Validated { step, epoch, average_map, best, report }, commands);
        let asked_by = self.state.validation.reporting.take();
        if asked_by.is_some() && asked_by == self.state.phase.team().map(|team| team.generation) {
            self.tell_team(Order::Validated { step, average_map, best }, commands);
        }
    }
}
