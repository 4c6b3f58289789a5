//! A checkpoint's parts, verified, for the thread that trains.

use bytes::Bytes;
use longtake_shared::checkpoint::{CheckpointError, CheckpointStore, Manifest, ManifestRef};
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

/// Reads checkpoints from a thread without a runtime of its own.
#[derive(Debug)]
pub struct Loader {
    runtime: Runtime,
    store: CheckpointStore,
}

impl Loader {
    /// A loader of these checkpoints.
    ///
    /// # Errors
    /// The system has no resources for a runtime.
    pub fn new(store: CheckpointStore) -> Result<Self, LoadError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { runtime: runtime.map_err(LoadError::Runtime)?, store })
    }

    /// The manifest that a coordinator names.
    ///
    /// # Errors
    /// It is damaged or missing, or the object store failed.
    pub fn manifest(&self, reference: &ManifestRef) -> Result<Manifest, LoadError> {
        Ok(self.runtime.block_on(self.store.manifest(reference))?)
    }

    /// Weights and optimizer of a checkpoint, checked against their hashes.
    ///
    /// # Errors
    /// A part is damaged or missing (the error names the object), or the object store failed.
    pub fn tensors(&self, manifest: &Manifest) -> Result<Loaded, LoadError> {
        self.runtime.block_on(async {
            let model = self.store.get_part(&manifest.model).await?;
            let optimizer = self.store.get_part(&manifest.optimizer).await?;
            Ok(Loaded { model, optimizer })
        })
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
            let bytes = self.runtime.block_on(self.store.get_part(&segment.part))?;
            memory.restore(&bytes)?;
        }
        Ok(())
    }
}
