//! One link of the chain that says which checkpoints exist.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ContentHash, PartRef};
use crate::ids::{Generation, Incarnation, Step};

/// Position in the chain, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    /// Name of the object that holds the commit; names sort as the numbers do.
    pub fn object(self) -> String {
        format!("commits/{:010}", self.0)
    }

    /// The position that an object's name stands for.
    pub fn of_object(name: &str) -> Option<Self> {
        name.strip_prefix("commits/")?.parse().ok().map(Self)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit {}", self.0)
    }
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// Version of this layout: [`super::FORMAT`].
    pub format: u32,
    /// Position in the chain.
    pub sequence: Sequence,
    /// Hash of the object that holds the commit before; nothing at the start of the chain.
    pub predecessor: Option<ContentHash>,
    /// Who wrote it: incarnations never fall along the chain.
    pub incarnation: Incarnation,
    /// What it says.
    pub entry: Entry,
}

/// What a commit says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
pub enum Entry {
    /// A new coordinator has taken over: what an older one still appends does not count.
    Fence,
    /// A checkpoint exists.
    Checkpoint {
        /// Steps of its stage that it contains.
        step: Step,
        /// Membership under which it was saved.
        generation: Generation,
        /// Name of its manifest, below the run.
        manifest: String,
        /// Hash and size of its manifest.
        content: PartRef,
        /// Whether its validation was the best so far.
        best: bool,
    },
}

/// An object of the chain that is not a commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Cut short or changed.
    #[error("its checksum does not match its content")]
    Checksum,
    /// The content is whole but says something else.
    #[error("it cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// It stands at another position than it says.
    #[error("it says that it is {0}")]
    Misplaced(Sequence),
    /// Written by another version.
    #[error("it has format {0}")]
    Format(u32),
}

impl Commit {
    /// As bytes: one line of JSON, one line with its BLAKE3 hash.
    pub fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_string(self).expect("a commit is numbers and texts");
        format!("{body}\n{}\n", ContentHash::of(body.as_bytes())).into_bytes()
    }

    /// From bytes that were found at a position.
    ///
    /// # Errors
    /// A checksum that does not match, another position, another format.
    pub fn decode(at: Sequence, bytes: &[u8]) -> Result<Self, CommitError> {
        let text = std::str::from_utf8(bytes).map_err(|_| CommitError::Checksum)?;
        let (body, checksum) =
            text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n')).ok_or(CommitError::Checksum)?;
        // Compared as text: a checksum whose digits changed case is a changed checksum.
        if checksum != ContentHash::of(body.as_bytes()).to_string() {
            return Err(CommitError::Checksum);
        }
        let commit: Self = serde_json::from_str(body).map_err(CommitError::Unreadable)?;
        if commit.format != super::FORMAT {
            return Err(CommitError::Format(commit.format));
        }
        if commit.sequence != at {
            return Err(CommitError::Misplaced(commit.sequence));
        }
        Ok(commit)
    }
}
