//! The identity that every message between coordinator and worker carries.

use super::wire;
use crate::ids::{Generation, Incarnation, Rank, RunId};

/// The run, membership and rank that a message belongs to. A receiver drops a message with an older identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The run.
    pub run: RunId,
    /// The coordinator start that the sender obeys; 0 before it knows one.
    pub incarnation: Incarnation,
    /// The generation; 0 before the sender belongs to one.
    pub generation: Generation,
    /// Rank of the worker in that generation; meaningless while the generation is 0.
    pub rank: Rank,
}

impl From<Identity> for wire::Identity {
    fn from(identity: Identity) -> Self {
        Self {
            run: identity.run.0,
            incarnation: identity.incarnation.0,
            generation: identity.generation.0,
            rank: identity.rank.0,
        }
    }
}

impl From<wire::Identity> for Identity {
    fn from(identity: wire::Identity) -> Self {
        Self {
            run: RunId(identity.run),
            incarnation: Incarnation(identity.incarnation),
            generation: Generation(identity.generation),
            rank: Rank(identity.rank),
        }
    }
}
