//! The invariants of the engine's state, checked after every event and over random histories.

use std::collections::BTreeSet;

use longtake_shared::ids::{Generation, LaneId, WorkerId};

use super::commit::{Committed, Moment};
use super::phase::{Phase, PhaseKind, Team};
use super::{RunState, Settings};

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// An impossible change of phase.
    Move(PhaseKind, PhaseKind),
    /// The generation number fell, or the phase belongs to another generation than the newest.
    Generation,
    /// The members of a generation changed.
    Membership,
    /// A lane has two owners or none, or shares are unequal.
    Lanes,
    /// A rank outside of the generation was accepted.
    Ranks,
    /// A member of the live generation is gone and has not finished.
    DeadMember(WorkerId),
    /// The run waits for a worker that is gone.
    DeadWaitedFor(WorkerId),
    /// Two processes with this index may run.
    Twice(usize),
    /// A commit was accepted that was not in flight.
    CommitOrder,
    /// A generation formed while a commit of the previous one was in flight: the sweep after it could remove new parts.
    FormedWhileSaving,
    /// A run has finished although workers may run or a commit is in flight.
    Leftovers,
}

/// The parts of a state that are needed to check the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    phase: PhaseKind,
    generation: Generation,
    /// Whether a generation was live, or its members were leaving it.
    lived: bool,
    /// Its members, if they are few.
    members: Option<Vec<WorkerId>>,
    newest: Option<Committed>,
    in_flight: Option<Moment>,
}

impl Before {
    /// From a state that is about to change.
    pub fn of(state: &RunState) -> Self {
        let team = match &state.phase {
            // It is live again when its members are found.
            Phase::Recovering { team, .. } => Some(team),
            phase => phase.team(),
        };
        Self {
            phase: state.phase.kind(),
            generation: state.generation,
            lived: team.is_some(),
            members: team.filter(|team| team.world() <= FULLY_CHECKED).map(|team| team.members.clone()),
            newest: state.saves.newest(),
            in_flight: state.saves.in_flight(),
        }
    }
}

/// Checks a state and the change that led to it.
///
/// # Errors
/// The first broken invariant.
pub fn check(settings: &Settings, before: &Before, after: &RunState) -> Result<(), Broken> {
    let (from, to) = (before.phase, after.phase.kind());
    if !from.may_become(to) {
        return Err(Broken::Move(from, to));
    }
    generation_rises(before, after)?;
    ranks_exist(after)?;
    commits_rise(before, after)?;
    let workers = after.roster.workers.len();
    if from == to && workers > FULLY_CHECKED && !after.counters.handled.is_multiple_of(workers as u64) {
        return Ok(());
    }
    if let Some(team) = after.phase.team() {
        lanes_are_owned_once(settings, team)?;
    }
    members_live(after)?;
    no_wait_for_the_dead(after)?;
    places_are_taken_once(after)?;
    nothing_is_left(after)
}

/// Number of workers up to which everything is checked after every event. In a larger run, the checks that visit every worker
/// run with each change of phase and once in as many events as there are workers, so that their cost per event is constant.
const FULLY_CHECKED: usize = 64;

/// At most one generation is live, and its number rises with each change of membership.
fn generation_rises(before: &Before, after: &RunState) -> Result<(), Broken> {
    if after.generation < before.generation {
        return Err(Broken::Generation);
    }
    let Some(team) = after.phase.team() else { return Ok(()) };
    if team.generation != after.generation {
        return Err(Broken::Generation);
    }
    match &before.members {
        Some(earlier) if before.generation == team.generation && *earlier != team.members => {
            Err(Broken::Membership)
        }
        Some(_) => Ok(()),
        None if before.lived || after.generation > before.generation => Ok(()),
        None => Err(Broken::Generation),
    }
}

fn lanes_are_owned_once(settings: &Settings, team: &Team) -> Result<(), Broken> {
    let all: Vec<LaneId> = team.lanes.iter().flatten().copied().collect();
    let distinct: BTreeSet<LaneId> = all.iter().copied().collect();
    let counts = team.lanes.iter().map(Vec::len);
    let uneven = counts.clone().max().unwrap_or(0) - counts.min().unwrap_or(0) > 1;
    let members: BTreeSet<&WorkerId> = team.members.iter().collect();
    if all.len() != settings.lanes
        || distinct.len() != all.len()
        || team.lanes.len() != team.world()
        || members.len() != team.world()
        || uneven
    {
        return Err(Broken::Lanes);
    }
    Ok(())
}

fn ranks_exist(state: &RunState) -> Result<(), Broken> {
    let highest = match &state.phase {
        Phase::Forming { team, ready, .. } => ready.last().map(|rank| (rank.index(), team.world())),
        Phase::Training { team, finished, .. } => {
            finished.last_key_value().map(|(rank, _)| (rank.index(), team.world()))
        }
        Phase::Gathering { .. }
        | Phase::Recovering { .. }
        | Phase::Ending { .. }
        | Phase::Finished { .. } => None,
    };
    match highest {
        Some((rank, world)) if rank >= world => Err(Broken::Ranks),
        _ => Ok(()),
    }
}

fn members_live(state: &RunState) -> Result<(), Broken> {
    let Some(team) = state.phase.team() else { return Ok(()) };
    for member in &team.members {
        let alive = state.roster.workers.get(member).is_some_and(super::Worker::alive);
        let through = match &state.phase {
            Phase::Training { finished, .. } => {
                team.rank(member).is_some_and(|rank| finished.contains_key(&rank))
            }
            _ => false,
        };
        if !alive && !through {
            return Err(Broken::DeadMember(member.clone()));
        }
    }
    Ok(())
}

/// Every wait has an end: an awaited worker may run, and is watched.
fn no_wait_for_the_dead(state: &RunState) -> Result<(), Broken> {
    let Phase::Recovering { waiting, .. } = &state.phase else { return Ok(()) };
    match waiting.iter().find(|member| !state.is_alive(member)) {
        Some(dead) => Err(Broken::DeadWaitedFor(dead.clone())),
        None => Ok(()),
    }
}

fn places_are_taken_once(state: &RunState) -> Result<(), Broken> {
    let mut taken = BTreeSet::new();
    let alive = state.roster.workers.values().filter(|worker| worker.alive());
    match alive.map(|worker| worker.index).find(|index| !taken.insert(*index)) {
        Some(index) => Err(Broken::Twice(index)),
        None => Ok(()),
    }
}

/// Only the commit in flight can be accepted, and one is in flight at a time.
fn commits_rise(before: &Before, after: &RunState) -> Result<(), Broken> {
    let newest = after.saves.newest();
    let committed = newest.filter(|_| newest != before.newest);
    if committed.is_some_and(|committed| before.in_flight != Some((committed.stage, committed.step))) {
        return Err(Broken::CommitOrder);
    }
    if after.generation > before.generation && after.saves.in_flight().is_some() {
        return Err(Broken::FormedWhileSaving);
    }
    Ok(())
}

fn nothing_is_left(state: &RunState) -> Result<(), Broken> {
    let left = state.roster.workers.values().any(super::Worker::alive) || state.saves.in_flight().is_some();
    if left && matches!(state.phase, Phase::Finished { .. }) {
        return Err(Broken::Leftovers);
    }
    Ok(())
}
