//! The members of a generation come to one state and one memory from what they hold, by [`crate::train::state_transfer::plan`].
//!
//! Whatever fails in the middle, what a worker holds stays true: the state is replaced at once with the write-back that it
//! lacked, and a lane counts as held only when all of it has come.

use std::collections::{BTreeMap, BTreeSet};

use longtake_shared::checkpoint::Counters;
use longtake_shared::hint::Failure;
use longtake_shared::ids::{LaneId, Rank, Step};

use super::codec;
use crate::control::{Carried, SavedStage};
use crate::model::memory::{RowCopies, Snapshot};
use crate::train::TrainError;
use crate::train::checkpointing::save::{Archive, VIDEOS_A_PART};
use crate::train::memory::lane_memory::LaneMemory;
use crate::train::memory::replicas;
use crate::train::run::context::RunContext;
use crate::train::state::worker_state::{State, WorkerState};
use crate::train::state_transfer::plan::{Handover, handovers};

/// Brings this worker to the state and the lanes that it has in the generation.
///
/// # Errors
/// The generation was aborted, a peer was lost, or this worker does not hold what the others were told it does.
pub fn carry(
    run: &RunContext,
    worker_state: &mut WorkerState,
    archive: &Archive,
    carried: &Carried,
) -> Result<(), TrainError> {
    let lanes = &run.assignment.lanes;
    let groups = |lane: LaneId| run.place.lanes.videos(lane).len().div_ceil(VIDEOS_A_PART);
    let trains = carried.stage == SavedStage::Train;
    let mut arrivals = Arrivals::default();
    for call in handovers(lanes, carried, groups) {
        match call {
            Handover::State { holder } => take_state(run, worker_state, carried, holder)?,
            Handover::Rows { .. } | Handover::Copies { .. } if !trains => {}
            Handover::Rows { lane, group, from, to } => {
                let memory = LaneMemory::of(&mut worker_state.memory, run)?;
                arrivals.rows(run, memory, (lane, group), (from, to))?;
            }
            Handover::Copies { lane, from, to } => {
                let memory = LaneMemory::of(&mut worker_state.memory, run)?;
                arrivals.copies(run, memory, lane, (from, to))?;
            }
        }
    }
    let held = worker_state.state.as_ref().map(|state| (state.stage(), state.step()));
    if held != Some((carried.stage, carried.step)) {
        return Err(TrainError::HoldsOther { step: carried.step });
    }
    if trains {
        let memory = LaneMemory::of(&mut worker_state.memory, run)?;
        arrivals.settle(run, archive, memory, carried)?;
        let since = run.newest_of_training().map_or(Step(0), |manifest| manifest.step);
        replicas::refresh(run, memory, since)?;
    }
    Ok(())
}

/// The holder's state goes to all; who is behind puts it in the place of its own, and writes the rows of the step that it had
/// computed and the others have committed.
fn take_state(
    run: &RunContext,
    worker_state: &mut WorkerState,
    carried: &Carried,
    holder: Rank,
) -> Result<(), TrainError> {
    let own = run.assignment.rank;
    let mut bytes = match &worker_state.state {
        Some(state) if own == holder => codec::encode(state)?,
        _ => Vec::new(),
    };
    run.collective.with(|collective| collective.broadcast(holder, &mut bytes))?;
    if own == holder || !carried.behind.contains(&own) {
        return Ok(());
    }
    let new = codec::decode(run, &bytes, worker_state.state.as_ref())?;
    let old = worker_state.state.replace(new);
    let pending = match old {
        Some(State::Train(old)) => old.pending.filter(|pending| pending.step == carried.step),
        _ => None,
    };
    let Some(memory) = &mut worker_state.memory else { return Ok(()) };
    match (pending, &worker_state.state) {
        (Some(pending), Some(State::Train(state))) => {
            if was_applied(&state.counters) {
                memory.write(&pending)?;
            }
        }
        // The lanes are further behind than a step, so they are not those of this state.
        _ => memory.invalidate(),
    }
    Ok(())
}

/// Whether the newest step was finite, so that its rows were written back.
fn was_applied(counters: &Counters) -> bool {
    counters.non_finite_in_a_row == 0
}

/// What has come for this worker's lanes.
#[derive(Default)]
struct Arrivals {
    /// The lane that this rank is sending.
    sending: Option<(LaneId, Snapshot)>,
    /// Lanes whose rows have come, all of them so far.
    rows: BTreeSet<LaneId>,
    /// Copies that have come.
    copies: BTreeMap<LaneId, RowCopies>,
}

impl Arrivals {
    /// A group of rows goes from one rank to another. Who turns out not to hold the lane sends nothing.
    fn rows(
        &mut self,
        run: &RunContext,
        memory: &mut LaneMemory,
        (lane, group): (LaneId, usize),
        (from, to): (Rank, Rank),
    ) -> Result<(), TrainError> {
        let own = run.assignment.rank;
        let mut send = Vec::new();
        if own == from {
            send.push((to, self.segment(memory, lane, group)?));
        }
        let receive = if own == to { vec![from] } else { Vec::new() };
        let received = run.collective.with(|collective| collective.exchange(&send, &receive))?;
        if let Some(segment) = received.first() {
            if group == 0 {
                memory.begin_empty(run, lane)?;
                self.rows.insert(lane);
            }
            if segment.is_empty() {
                self.rows.remove(&lane);
            } else {
                memory.store.restore(segment)?;
            }
        }
        Ok(())
    }

    fn segment(&mut self, memory: &LaneMemory, lane: LaneId, group: usize) -> Result<Vec<u8>, TrainError> {
        if !memory.holds(lane) {
            return Ok(Vec::new());
        }
        if self.sending.as_ref().is_none_or(|(sending, _)| *sending != lane) {
            self.sending = Some((lane, memory.store.snapshot(&[lane])?));
        }
        let Some((_, snapshot)) = &self.sending else { return Ok(Vec::new()) };
        let segment = snapshot.group(lane, VIDEOS_A_PART, group)?;
        Ok(segment.map_or_else(Vec::new, |segment| segment.bytes.to_vec()))
    }

    fn copies(
        &mut self,
        run: &RunContext,
        memory: &LaneMemory,
        lane: LaneId,
        (from, to): (Rank, Rank),
    ) -> Result<(), TrainError> {
        let own = run.assignment.rank;
        let mut send = Vec::new();
        if own == from {
            send.push((to, memory.copies.of_lane(lane).encode()?));
        }
        let receive = if own == to { vec![from] } else { Vec::new() };
        let received = run.collective.with(|collective| collective.exchange(&send, &receive))?;
        if let Some(bytes) = received.first() {
            self.copies.insert(lane, replicas::decode(run, bytes)?);
        }
        Ok(())
    }

    /// Lanes that have come are whole; those of which nobody had the rows are made of the checkpoint and of copies.
    fn settle(
        mut self,
        run: &RunContext,
        archive: &Archive,
        memory: &mut LaneMemory,
        carried: &Carried,
    ) -> Result<(), TrainError> {
        for moved in carried.moves.iter().filter(|moved| moved.copy && moved.from == run.assignment.rank) {
            // An owner that has the copies itself.
            self.copies.entry(moved.lane).or_insert_with(|| memory.copies.of_lane(moved.lane));
        }
        for &lane in run.own_lanes() {
            if self.rows.contains(&lane) {
                memory.settle(lane);
            } else if !memory.holds(lane) {
                let copies = self.copies.remove(&lane).unwrap_or_else(|| memory.no_copies());
                rebuild(run, archive, memory, lane, &copies, carried.step)?;
            }
        }
        Ok(())
    }
}

/// Makes a lost lane of the newest checkpoint's rows and of newer copies. What is in neither is absent, and the steps that
/// need it compute it.
fn rebuild(
    run: &RunContext,
    archive: &Archive,
    memory: &mut LaneMemory,
    lane: LaneId,
    copies: &RowCopies,
    now: Step,
) -> Result<(), TrainError> {
    let generation = run.assignment.generation;
    run.collective.check()?;
    memory.begin_empty(run, lane)?;
    let saved = run.newest_of_training().filter(|manifest| manifest.segments_of(&[lane]).next().is_some());
    if let Some(manifest) = saved
        && let Err(error) = archive.restore_lane(manifest, lane, &mut memory.store)
    {
        let cause = Failure::from(error).message;
        let text = format!("the memory of {lane} in the checkpoint of {} is lost: {cause}", manifest.step);
        run.session.warning(generation, text)?;
        memory.begin_empty(run, lane)?;
    }
    let (from_checkpoint, _) = memory.store.count(lane);
    let copied = memory.store.overlay(copies)?;
    let (present, absent) = memory.store.count(lane);
    memory.settle(lane);
    if now > Step(0) {
        let kept = (present - copied).min(from_checkpoint);
        let text = format!(
            "the memory of {lane} was lost with its worker: {copied} rows come from copies, {kept} from the checkpoint \
             of {}, {absent} are absent and are computed when they are needed",
            saved.map_or(Step(0), |manifest| manifest.step)
        );
        run.session.warning(generation, text)?;
    }
    Ok(())
}
