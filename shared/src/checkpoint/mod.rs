//! What makes a checkpoint real: parts named by their hash, a manifest that names the parts, a commit that names the manifest.
//!
//! ```text
//! <run>/parts/<blake3>                                immutable bytes: weights, optimizer, memory segments
//! <run>/checkpoints/<step>-g<generation>/manifest.json    which parts, and under which conditions they were made
//! <run>/commits/<sequence>                            a chain; a checkpoint that is not in it does not exist
//! ```
//!
//! Nothing is overwritten, and only create-if-absent is asked of the store. `docs/CHECKPOINT.md` tells the whole story.

mod appender;
mod commit;
mod conditions;
mod examine;
mod manifest;
mod rank_parts;
mod reading;
mod retention;
mod store;
mod sweep;

pub use appender::Appender;
pub use commit::{Commit, CommitError, Entry, Sequence};
pub use conditions::{Conditions, Mismatch, Mismatches, Settings};
pub use examine::{Examined, Examiner};
pub use manifest::{
    Best, Counters, FORMAT, LaneState, Manifest, ManifestError, MemorySegment, OptimizerState,
};
pub use rank_parts::{RankParts, RankPartsError, assemble};
pub use reading::Reading;
pub use retention::{Candidate, Retention, keep};
pub use store::{Chain, CheckpointError, CheckpointStore, Committed, Damage, Depth, ManifestRef, Newest};
pub use sweep::Swept;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::objects::PutPayload;

/// BLAKE3 hash of some bytes; written as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl From<blake3::Hash> for ContentHash {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

/// A text that is not a hash.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a BLAKE3 hash of 64 hexadecimal digits")]
pub struct NotAHash(String);

impl FromStr for ContentHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        blake3::Hash::from_hex(text).map(Self::from).map_err(|_| NotAHash(text.to_owned()))
    }
}

impl Serialize for ContentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One part: immutable bytes, known by their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRef {
    /// Hash of the bytes, and name of the object.
    pub hash: ContentHash,
    /// How many bytes.
    pub bytes: u64,
}

impl PartRef {
    /// The part that these bytes make.
    pub fn of(bytes: &[u8]) -> Self {
        Self { hash: ContentHash::of(bytes), bytes: bytes.len() as u64 }
    }

    /// The part that these pieces make, one behind the other.
    pub fn of_payload(content: &PutPayload) -> Self {
        let mut hasher = blake3::Hasher::new();
        for piece in content {
            hasher.update(piece);
        }
        Self { hash: hasher.finalize().into(), bytes: hasher.count() }
    }

    /// Name of the object that holds the part.
    pub fn object(&self) -> String {
        format!("parts/{}", self.hash)
    }
}

#[cfg(test)]
mod tests;
