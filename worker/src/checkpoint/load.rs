//! A checkpoint's parts, verified, for the thread that trains.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use longtake_shared::checkpoint::{CheckpointError, CheckpointStore, Manifest, PartRef, Reading};
use longtake_shared::hint::Hint;
use longtake_shared::ids::LaneId;
use tokio::runtime::Runtime;

use crate::model::memory::{MemoryError, MemoryStore};

/// A checkpoint that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Something of it is damaged or missing, or the object store failed.
    #[error("the checkpoint could not be loaded")]
    Store(#[from] CheckpointError),
    /// The memory does not take it.
    #[error("the long memory of the checkpoint could not be restored")]
    Memory(#[from] MemoryError),
    /// No runtime.
    #[error("the checkpoint could not be loaded: no runtime for its input")]
    Runtime(#[source] std::io::Error),
    /// The manifest does not cover a lane's videos.
    #[error("the checkpoint has no memory of {lane}")]
    NoMemory {
        /// The lane.
        lane: LaneId,
    },
}

impl Hint for LoadError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Memory(error) => error.hint(),
            Self::Runtime(_) => None,
            Self::NoMemory { .. } => Some("resume with the lanes and videos of the checkpoint".into()),
        }
    }
}

/// The tensors of a checkpoint, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Parameters and buffers.
    pub model: Bytes,
    /// The optimizer's tensors.
    pub optimizer: Bytes,
}

/// How long a worker waits for its mark to be taken away: it then ends by itself.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Reads checkpoints from a thread without a runtime of its own. What it loads is spared by every sweep, from the first part
/// until [`Self::end`].
#[derive(Debug)]
pub struct Loader {
    runtime: Runtime,
    store: CheckpointStore,
    /// The mark of the load that has begun; a worker that loads nothing puts none.
    reading: RefCell<Option<Reading>>,
}

impl Loader {
    /// A loader of these checkpoints.
    ///
    /// # Errors
    /// The system has no resources for a runtime.
    pub fn new(store: CheckpointStore) -> Result<Self, LoadError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { runtime: runtime.map_err(LoadError::Runtime)?, store, reading: RefCell::new(None) })
    }

    /// A part, under the mark of this load.
    fn part(&self, part: &PartRef) -> Result<Bytes, LoadError> {
        let mut reading = self.reading.borrow_mut();
        self.runtime.block_on(async {
            let reading = match &mut *reading {
                Some(reading) => reading,
                none => {
                    let now = SystemTime::now();
                    let who = format!("worker, process {} at {now:?}", std::process::id());
                    none.insert(self.store.begin_reading(&who, now).await?)
                }
            };
            Ok(reading.during(SystemTime::now, self.store.get_part(part)).await?)
        })
    }

    /// Nothing more is loaded for now: what was may be swept. A load that is not ended, because its process dies, keeps
    /// sweeps waiting until its mark runs out.
    pub fn end(&self) {
        let Some(reading) = self.reading.borrow_mut().take() else { return };
        let ended = async { tokio::time::timeout(END_PATIENCE, reading.end()).await };
        if !matches!(self.runtime.block_on(ended), Ok(Ok(()))) {
            tracing::warn!("the mark of a load stays until it ends by itself");
        }
    }

    /// Weights and optimizer of a checkpoint, checked against their hashes.
    ///
    /// # Errors
    /// A part is damaged or missing (the error names the object), or the object store failed.
    pub fn tensors(&self, manifest: &Manifest) -> Result<Loaded, LoadError> {
        Ok(Loaded { model: self.part(&manifest.model)?, optimizer: self.part(&manifest.optimizer)? })
    }

    /// Puts the checkpoint's memory of some lanes, which have been added, into a store; one part at a time.
    ///
    /// # Errors
    /// A part is damaged or missing (the error names the object), does not fit the store, or the checkpoint knows nothing
    /// of a lane.
    pub fn memory(
        &self,
        manifest: &Manifest,
        lanes: &[LaneId],
        memory: &mut MemoryStore,
    ) -> Result<(), LoadError> {
        for lane in lanes {
            if manifest.segments_of(&[*lane]).next().is_none() {
                return Err(LoadError::NoMemory { lane: *lane });
            }
        }
        for segment in manifest.segments_of(lanes) {
            memory.restore(&self.part(&segment.part)?)?;
        }
        Ok(())
    }
}
