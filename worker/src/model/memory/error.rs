//! What can go wrong with the long memory, and what was put right.

use std::path::PathBuf;

use longtake_shared::hint::Hint;
use longtake_shared::ids::{LaneId, VideoIndex};

/// What opening a store had to put right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The store could not be used; an empty one stands in its place.
    #[error("the long memory in `{}` was set aside as `{}`: {reason}", folder.display(), aside.display())]
    SetAside {
        /// Folder of the store.
        folder: PathBuf,
        /// What its index was renamed to; the slab has the same ending.
        aside: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// Entries that point nowhere, or at a slot that another row has.
    #[error("{rows} rows of {lane} in the long memory point at no slot of their own and are forgotten")]
    RowsLost {
        /// The lane.
        lane: LaneId,
        /// How many.
        rows: usize,
    },
}

/// What can go wrong with the long memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Another process has it open.
    #[error("the long memory in `{}` is open in another process", folder.display())]
    InUse {
        /// Folder of the store.
        folder: PathBuf,
    },
    /// The disk is full.
    #[error("no space is left for the long memory in `{}`", folder.display())]
    Full {
        /// Folder of the store.
        folder: PathBuf,
    },
    /// The system failed.
    #[error("could not {action} the long memory in `{}`", folder.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Folder of the store.
        folder: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It can no longer be written.
    #[error("the long memory in `{}` can no longer be written: {problem}", folder.display())]
    Unwritable {
        /// Folder of the store.
        folder: PathBuf,
        /// What went wrong first.
        problem: String,
    },
    /// The store could not be opened even anew.
    #[error("a new ledger of the long memory cannot be made in `{}`: {problem}", folder.display())]
    Unusable {
        /// Folder of the store.
        folder: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// A lane or video that was not added.
    #[error("{lane} of the long memory has no {video}")]
    Unknown {
        /// The lane.
        lane: LaneId,
        /// The video.
        video: VideoIndex,
    },
    /// Values that are not whole rows.
    #[error("{values} values are not a whole number of rows of {channels} channels")]
    NotRows {
        /// How many values were given.
        values: usize,
        /// Channels of a row.
        channels: usize,
    },
    /// A segment of a checkpoint that does not fit.
    #[error("a memory segment of the checkpoint cannot be restored: {problem}")]
    Segment {
        /// What is wrong with it.
        problem: String,
    },
}

impl Hint for MemoryError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::InUse { .. } => Some("stop the other worker, or give this one a folder of its own".into()),
            Self::Full { .. } => Some("free some space; what was remembered before is intact".into()),
            Self::Io { .. } | Self::Unwritable { .. } | Self::Unusable { .. } => {
                Some("check the disk; the memory can be rebuilt from the newest checkpoint".into())
            }
            Self::Segment { .. } => Some("resume with the settings and data of the checkpoint".into()),
            Self::Unknown { .. } | Self::NotRows { .. } => None,
        }
    }
}
