//! How a generation comes about: of whom, with which lanes, going on from what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_shared::config::Recovery;
use longtake_shared::ids::{Generation, Incarnation, LaneId, Rank, WorkerId};
use longtake_shared::protocol::Carried;

use super::command::{Command, Order};
use super::membership::{Worker, WorkerState};
use super::phase::{Phase, Team};
use super::quorum::{self, Question, Quorum};
use super::{RunEngine, RunUpdate, assignment, recovery};
use crate::journal::Record;

/// Nobody.
static NOBODY: BTreeSet<WorkerId> = BTreeSet::new();

impl RunEngine {
    /// Whether a generation may form now; nothing where the run does not wait for one.
    pub fn quorum(&self, now: Duration) -> Option<Quorum> {
        let settings = &self.settings;
        let saving = self.state.saves.in_flight().is_some();
        let question = match &self.state.phase {
            Phase::Gathering { since } => Question {
                settings,
                waiting: &NOBODY,
                before: &[],
                not_before: Duration::ZERO,
                searching: self.state.searching,
                saving,
                all: self.may_wait_for_all(*since, now),
                now,
            },
            Phase::Recovering { team, waiting, not_before, .. } => Question {
                settings,
                waiting,
                before: &team.members,
                not_before: *not_before,
                searching: self.state.searching,
                saving,
                all: false,
                now,
            },
            _ => return None,
        };
        Some(quorum::decide(&self.state.workers, &question))
    }

    /// At first the run waits for all it wants, as long as more may come soon.
    fn may_wait_for_all(&self, since: Duration, now: Duration) -> bool {
        let starting = self.state.workers.values().any(|worker| worker.state == WorkerState::Starting);
        let quiet = now.saturating_sub(self.state.last_joined) > self.settings.join_grace();
        let late = now.saturating_sub(since) > self.settings.gather_timeout;
        !late && (starting || !quiet)
    }

    pub(super) fn try_form(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let Some(Quorum::Form { members }) = self.quorum(now) else { return };
        let generation = self.state.generation.next().max(first_generation(self.state.incarnation));
        // Where all return to a checkpoint, lanes depend on nothing but the ranks: sums are then rounded as they would have been.
        let nobody = BTreeMap::new();
        let before = if self.returns() { &nobody } else { &self.state.owned };
        let lanes = assignment::assign(self.settings.lanes, &members, before);
        let carried = self.carried(&members, &lanes);
        let team = Team { generation, incarnation: self.state.incarnation, members, lanes };
        let peers = team.members.iter().filter_map(|id| self.state.workers[id].ring_address()).collect();
        let indices = team.members.iter().map(|id| self.state.workers[id].index).collect();
        commands.push(Command::Journal(Record::Generation { team: team.clone(), indices }));
        if let Phase::Recovering { incident, .. } = &self.state.phase {
            let incident = incident.clone();
            let goes_on_at = carried.as_ref().map(|carried| carried.step).or(self.resume_point().step());
            let (world, goes_on_at) = (team.world(), goes_on_at.unwrap_or_default());
            Self::announce(RunUpdate::Recovered { incident, generation, world, goes_on_at }, commands);
        }
        self.state.generation = generation;
        self.state.owned = team.owned();
        self.state.kept.clear();
        self.state.saves.forget_gathered();
        self.state.flags.reconfigure = false;
        let (members, lanes) = (team.members.clone(), team.lanes.clone());
        let order = Order::Form { peers, lanes, carried };
        self.state.phase = Phase::Forming {
            team,
            ready: BTreeSet::new(),
            order: Some(order.clone()),
            adopted: None,
            finished: BTreeMap::new(),
        };
        self.tell(members, order, commands);
    }

    /// Whether the next generation begins at the newest checkpoint, or at the start. In mode `exact`, a loss sends everyone
    /// back there; a change that all agreed on loses nothing.
    fn returns(&self) -> bool {
        match &self.state.phase {
            Phase::Recovering { incident, .. } => {
                incident.is_some() && self.settings.recovery == Recovery::Exact
            }
            _ => true,
        }
    }

    /// What the members take with them.
    fn carried(&self, members: &[WorkerId], lanes: &[Vec<LaneId>]) -> Option<Carried> {
        if self.returns() {
            return None;
        }
        recovery::carry(members, lanes, &self.state.kept, self.checkpoint())
    }

    /// A rank is ready; one that says so again, because its agent was away, may have missed what followed.
    pub(super) fn ready(
        &mut self,
        now: Duration,
        worker: &WorkerId,
        rank: Rank,
        commands: &mut Vec<Command>,
    ) {
        if matches!(self.state.phase, Phase::Training { .. }) {
            self.tell(vec![worker.clone()], Order::Train, commands);
            self.tell(vec![worker.clone()], Order::SetFlags(self.state.flags), commands);
        }
        let Phase::Forming { team, ready, finished, .. } = &mut self.state.phase else { return };
        ready.insert(rank);
        if ready.len() < team.world() {
            return;
        }
        let (team, finished) = (team.clone(), std::mem::take(finished));
        let (generation, world) = (team.generation, team.world());
        self.state.phase = Phase::Training { team, finished, left: BTreeSet::new() };
        self.state.trained = true;
        Self::announce(RunUpdate::Formed { generation, world }, commands);
        self.tell_team(Order::Train, commands);
        self.let_others_join(commands);
        if self.state.flags.checkpoint || self.state.flags.stop {
            self.tell_flags(commands);
        }
        self.start_workers(now, commands);
        self.end_where_all_are_through(now, commands);
    }

    /// Indices of the workers that are missing.
    pub fn missing(&self) -> Vec<usize> {
        let joined = |index: usize| {
            let connected = |worker: &Worker| matches!(worker.state, WorkerState::Joined { .. });
            self.state.workers.values().any(|worker| worker.index == index && connected(worker))
        };
        (0..self.settings.workers).filter(|index| !joined(*index)).collect()
    }
}

/// The first generation that a coordinator may announce. An earlier one that still announced some where its lock did not hold
/// would need a thousand changes of membership to reach it.
fn first_generation(incarnation: Incarnation) -> Generation {
    const A_COORDINATOR: u64 = 1000;
    Generation(incarnation.0.saturating_sub(1) * A_COORDINATOR + 1)
}
