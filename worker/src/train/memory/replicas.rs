//! Each rank keeps copies of what the rank before it writes back, until it is in a checkpoint.
//!
//! Takes: the rows of a committed step. Gives: copies on the next rank. Next: [`crate::train::state_transfer`] where their owner is lost.

use longtake_shared::ids::Step;

use crate::model::memory::RowCopies;
use crate::train::TrainError;
use crate::train::memory::lane_memory::LaneMemory;
use crate::train::memory::write_back::PendingRows;
use crate::train::run::context::RunContext;

/// Passes the rows of a committed step on, and takes those of the rank before.
///
/// # Errors
/// The generation was aborted, or a peer was lost. The step stays committed.
pub fn pass_on(run: &RunContext, memory: &mut LaneMemory, rows: &PendingRows) -> Result<(), TrainError> {
    if run.neighbours().is_none() {
        return Ok(());
    }
    let mut copies = memory.no_copies();
    for write in &rows.rows {
        copies.add(write.lane, write.video, rows.step, write.first_row, &write.values);
    }
    let received = shift(run, &copies)?;
    memory.copies.merge(received);
    Ok(())
}

/// Begins the copies of a generation: all rows that were written after `since`, whoever held copies of them before.
///
/// # Errors
/// As [`pass_on`]; the copies of before are then still there.
pub fn refresh(run: &RunContext, memory: &mut LaneMemory, since: Step) -> Result<(), TrainError> {
    memory.copies = if run.neighbours().is_some() {
        shift(run, &memory.written_after(run.own_lanes(), since)?)?
    } else {
        memory.no_copies()
    };
    Ok(())
}

/// Copies from another rank.
///
/// # Errors
/// Bytes that are no copies of rows of this run.
pub fn decode(run: &RunContext, bytes: &[u8]) -> Result<RowCopies, TrainError> {
    let channels = run.place.config.geometry().channels;
    Ok(RowCopies::decode(bytes, channels, run.place.config.memory.dtype)?)
}

fn shift(run: &RunContext, copies: &RowCopies) -> Result<RowCopies, TrainError> {
    let Some((next, previous)) = run.neighbours() else { return Ok(copies.emptied()) };
    let send = [(next, copies.encode()?)];
    let received = run.collective.with(|collective| collective.exchange(&send, &[previous]))?;
    decode(run, received.first().map_or(&[], Vec::as_slice))
}
