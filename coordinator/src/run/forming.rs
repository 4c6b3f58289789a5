//! Forming a generation: its members, their lanes, and the state it starts from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_shared::config::Recovery;
use longtake_shared::ids::{Generation, Incarnation, LaneId, Rank, WorkerId};
use longtake_shared::protocol::{Carried, Formation, Order};

use super::command::Command;
use super::membership::{Worker, WorkerState};
use super::phase::{Phase, Team};
use super::quorum::{self, Question, Quorum};
use super::record::Record;
use super::{RunEngine, assignment, recovery};
use crate::updates::RunUpdate;

/// No worker.
static NOBODY: BTreeSet<WorkerId> = BTreeSet::new();

impl RunEngine {
    /// Whether a generation may form now; none in phases that do not wait for one.
    pub fn quorum(&self, now: Duration) -> Option<Quorum> {
        let settings = &self.settings;
        let saving = self.state.saves.in_flight().is_some();
        let question = match &self.state.phase {
            Phase::Gathering { since } => Question {
                settings,
                waiting: &NOBODY,
                before: &[],
                not_before: Duration::ZERO,
                searching: self.state.saves.is_searching(),
                saving,
                all: self.may_wait_for_all(*since, now),
                now,
            },
            Phase::Recovering { team, waiting, not_before, .. } => Question {
                settings,
                waiting,
                before: &team.members,
                not_before: *not_before,
                searching: self.state.saves.is_searching(),
                saving,
                all: false,
                now,
            },
            _ => return None,
        };
        Some(quorum::decide(&self.state.roster.workers, &question))
    }

    /// At first the run waits for all configured workers, as long as more may connect soon.
    fn may_wait_for_all(&self, since: Duration, now: Duration) -> bool {
        let starting = self.state.roster.workers.values().any(|worker| worker.state == WorkerState::Starting);
        let quiet = now.saturating_sub(self.state.roster.last_joined) > self.settings.join_grace();
        let late = now.saturating_sub(since) > self.settings.gather_timeout;
        !late && (starting || !quiet)
    }

    pub(super) fn try_form(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let Some(Quorum::Form { members }) = self.quorum(now) else { return };
        let generation = self.state.generation.next().max(first_generation(self.state.incarnation));
        // When all members return to a checkpoint, lanes depend on ranks alone, so that sums are rounded as without the loss.
        let nobody = BTreeMap::new();
        let before = if self.returns() { &nobody } else { &self.state.previous.owned };
        let lanes = assignment::assign(self.settings.lanes, &members, before);
        let carried = self.carried(&members, &lanes);
        let team = Team { generation, incarnation: self.state.incarnation, members, lanes };
        let peers =
            team.members.iter().filter_map(|id| self.state.roster.workers[id].ring_address()).collect();
        let indices = team.members.iter().map(|id| self.state.roster.workers[id].index).collect();
        commands.push(Command::Journal(Record::Generation { team: team.clone(), indices }));
        if let Phase::Recovering { incident, .. } = &self.state.phase {
            let incident = incident.clone();
            let goes_on_at = carried.as_ref().map(|carried| carried.step).or(self.resume_point().step());
            let (world, goes_on_at) = (team.world(), goes_on_at.unwrap_or_default());
            Self::announce(RunUpdate::Recovered { incident, generation, world, goes_on_at }, commands);
        }
        self.state.generation = generation;
        self.state.previous.owned = team.owned();
        self.state.previous.kept.clear();
        self.state.saves.forget_gathered();
        self.state.requests.flags.reconfigure = false;
        let (members, lanes) = (team.members.clone(), team.lanes.clone());
        let order = Order::Form(Formation { peers, lanes, carried });
        self.state.phase = Phase::Forming {
            team,
            ready: BTreeSet::new(),
            order: Some(order.clone()),
            adopted: None,
            finished: BTreeMap::new(),
        };
        self.tell(members, order, commands);
    }

    /// Whether the next generation loads the newest checkpoint, or starts anew. In mode `exact`, every loss of a worker does
    /// that; a change of membership that all agreed on keeps the state.
    fn returns(&self) -> bool {
        match &self.state.phase {
            Phase::Recovering { incident, .. } => {
                incident.is_some() && self.settings.recovery == Recovery::Exact
            }
            _ => true,
        }
    }

    /// The state that the members keep.
    fn carried(&self, members: &[WorkerId], lanes: &[Vec<LaneId>]) -> Option<Carried> {
        if self.returns() {
            return None;
        }
        recovery::carry(members, lanes, &self.state.previous.kept, self.checkpoint())
    }

    /// A rank is ready. A repeated report, after its agent was disconnected, may mean that it missed the following orders.
    pub(super) fn ready(
        &mut self,
        now: Duration,
        worker: &WorkerId,
        rank: Rank,
        commands: &mut Vec<Command>,
    ) {
        if matches!(self.state.phase, Phase::Training { .. }) {
            self.tell(vec![worker.clone()], Order::Train, commands);
            self.tell(vec![worker.clone()], Order::SetFlags(self.state.requests.flags), commands);
        }
        let Phase::Forming { team, ready, finished, .. } = &mut self.state.phase else { return };
        ready.insert(rank);
        if ready.len() < team.world() {
            return;
        }
        let (team, finished) = (team.clone(), std::mem::take(finished));
        let (generation, world) = (team.generation, team.world());
        self.state.phase = Phase::Training { team, finished, left: BTreeSet::new() };
        self.state.progress.trained = true;
        Self::announce(RunUpdate::Formed { generation, world }, commands);
        self.tell_team(Order::Train, commands);
        self.let_others_join(commands);
        if self.state.requests.flags.checkpoint || self.state.requests.flags.stop {
            self.tell_flags(commands);
        }
        self.start_workers(now, commands);
        self.end_where_all_are_through(now, commands);
    }

    /// Indices of the missing workers.
    pub fn missing(&self) -> Vec<usize> {
        let joined = |index: usize| {
            let connected = |worker: &Worker| matches!(worker.state, WorkerState::Joined { .. });
            self.state.roster.workers.values().any(|worker| worker.index == index && connected(worker))
        };
        (0..self.settings.workers).filter(|index| !joined(*index)).collect()
    }
}

/// The first generation that a coordinator may announce. If its lock failed, an earlier coordinator could still announce
/// generations; it would need a thousand of them to reach this number.
fn first_generation(incarnation: Incarnation) -> Generation {
    const A_COORDINATOR: u64 = 1000;
    Generation(incarnation.0.saturating_sub(1) * A_COORDINATOR + 1)
}
