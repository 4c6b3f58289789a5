//! What each rank reports of a save, and the one manifest that is made of it.

use serde::{Deserialize, Serialize};

use super::{Manifest, MemorySegment};
use crate::ids::Rank;

/// What a rank has made durable for a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankParts {
    /// From rank 0: the manifest without the memory of other ranks.
    pub manifest: Option<Manifest>,
    /// From every rank: the memory of its lanes.
    pub memory: Vec<MemorySegment>,
}

/// Reports that make no manifest.
#[derive(Debug, thiserror::Error)]
pub enum RankPartsError {
    /// A rank's report cannot be read.
    #[error("what {rank} reports of its save cannot be read")]
    Unreadable {
        /// The rank.
        rank: Rank,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Nobody, or more than one, has reported weights.
    #[error("{found} ranks report weights for the checkpoint instead of one")]
    Weights {
        /// How many.
        found: usize,
    },
}

impl crate::hint::Hint for RankPartsError {}

/// The manifest of a checkpoint to which every rank has contributed, reports in the order of ranks.
///
/// # Errors
/// A report that cannot be read, or not exactly one with weights.
pub fn assemble(reports: &[serde_json::Value]) -> Result<Manifest, RankPartsError> {
    let mut manifests = Vec::new();
    let mut memory = Vec::new();
    for (rank, report) in (0u32..).zip(reports) {
        let parts: RankParts = serde_json::from_value(report.clone())
            .map_err(|source| RankPartsError::Unreadable { rank: Rank(rank), source })?;
        manifests.extend(parts.manifest);
        memory.extend(parts.memory);
    }
    let found = manifests.len();
    let [mut manifest] =
        <[Manifest; 1]>::try_from(manifests).map_err(|_| RankPartsError::Weights { found })?;
    memory.sort();
    manifest.memory = memory;
    Ok(manifest)
}
