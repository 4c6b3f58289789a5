//! The long memory of this worker's lanes, from one generation to the next.
//!
//! Takes: lanes that come and go. Gives: their rows. Next: [`crate::model::memory`] stores them.

use std::collections::BTreeSet;

use longtake_shared::ids::{LaneId, Step};

use crate::model::memory::{MemoryStore, RowCopies, StoreFolder};
use crate::train::TrainError;
use crate::train::memory::write_back::PendingRows;
use crate::train::run::context::RunContext;

/// The store of this process, and which of its lanes are as they should be.
#[derive(Debug)]
pub struct LaneMemory {
    /// The rows.
    pub store: MemoryStore,
    /// Copies of what the rank before this one has written since the newest checkpoint.
    pub copies: RowCopies,
    /// Lanes whose rows are those of the state beside it. Others are on their way.
    whole: BTreeSet<LaneId>,
    /// Goes after the store.
    _folder: StoreFolder,
}

impl LaneMemory {
    /// An empty memory in a folder of this process.
    ///
    /// # Errors
    /// The folder or the store cannot be made.
    pub fn open(run: &RunContext) -> Result<Self, TrainError> {
        let folder = StoreFolder::claim(&run.assignment.run_folder.join("memory"), run.worker)?;
        let channels = run.place.config.geometry().channels;
        let dtype = run.place.config.memory.dtype;
        let (store, warnings) = MemoryStore::open(folder.path(), channels, dtype)?;
        for warning in warnings {
            run.session.warning(run.assignment.generation, warning.to_string())?;
        }
        let copies = RowCopies::new(channels, dtype);
        Ok(Self { store, copies, whole: BTreeSet::new(), _folder: folder })
    }

    /// The memory of a worker, opened where it has none yet; one that can no longer be written is given up for a new one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of<'a>(memory: &'a mut Option<Self>, run: &RunContext) -> Result<&'a mut Self, TrainError> {
        if let Some(failure) = memory.as_ref().and_then(|memory| memory.store.failure()) {
            let text = format!("the long memory of worker {} is made anew: {failure}", run.worker);
            run.session.warning(run.assignment.generation, text)?;
            *memory = None;
        }
        match memory {
            Some(memory) => Ok(memory),
            None => Ok(memory.insert(Self::open(run)?)),
        }
    }

    /// Lanes that another worker could take over from here.
    pub fn held(&self) -> Vec<LaneId> {
        if self.store.failure().is_some() { Vec::new() } else { self.whole.iter().copied().collect() }
    }

    /// Whether the rows of a lane are those of the state beside it.
    pub fn holds(&self, lane: LaneId) -> bool {
        self.whole.contains(&lane)
    }

    /// Nothing is as it should be any more: another state takes the place of the one beside it.
    pub fn invalidate(&mut self) {
        self.whole.clear();
        self.copies = self.no_copies();
    }

    /// No copies of rows of this memory's shape.
    pub fn no_copies(&self) -> RowCopies {
        self.copies.emptied()
    }

    /// Begins a lane without rows; until [`Self::settle`] it is on its way.
    ///
    /// # Errors
    /// A video cannot be read, or the store not written.
    pub fn begin_empty(&mut self, run: &RunContext, lane: LaneId) -> Result<(), TrainError> {
        self.whole.remove(&lane);
        if self.store.lanes().contains(&lane) {
            self.store.drop_lane(lane)?;
        }
        self.add(run, lane)
    }

    /// Sees that there are places for a lane's rows; what it holds may be of another state.
    ///
    /// # Errors
    /// As [`Self::begin_empty`].
    pub fn begin(&mut self, run: &RunContext, lane: LaneId) -> Result<(), TrainError> {
        self.whole.remove(&lane);
        if self.store.lanes().contains(&lane) { Ok(()) } else { self.add(run, lane) }
    }

    fn add(&mut self, run: &RunContext, lane: LaneId) -> Result<(), TrainError> {
        let videos = run.place.lanes.videos(lane);
        let rows: Result<Vec<_>, TrainError> =
            videos.iter().map(|&video| Ok((video, run.rows(video)?))).collect();
        Ok(self.store.add_lane(lane, &rows?)?)
    }

    /// A lane's rows are now those of the state.
    pub fn settle(&mut self, lane: LaneId) {
        self.whole.insert(lane);
    }

    /// Forgets the lanes that are not among these.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep_only(&mut self, lanes: &[LaneId]) -> Result<(), TrainError> {
        for lane in self.store.lanes() {
            if !lanes.contains(&lane) {
                self.whole.remove(&lane);
                self.store.drop_lane(lane)?;
            }
        }
        Ok(())
    }

    /// Writes the rows of a committed step, of the lanes that are here.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn write(&mut self, pending: &PendingRows) -> Result<(), TrainError> {
        for write in &pending.rows {
            if self.whole.contains(&write.lane) {
                self.store.write(write.lane, write.video, pending.step, write.first_row, &write.values)?;
            }
        }
        Ok(())
    }

    /// Copies of the rows of some lanes that were written after a step.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn written_after(&self, lanes: &[LaneId], step: Step) -> Result<RowCopies, TrainError> {
        let mut copies = self.no_copies();
        for lane in lanes {
            copies.merge(self.store.written_after(*lane, step)?);
        }
        Ok(copies)
    }
}
