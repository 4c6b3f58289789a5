//! The durable records of a run: what a coordinator must know of its predecessor.

use longtake_shared::ids::Incarnation;
use serde::{Deserialize, Serialize};

use super::commit::Committed;
use super::phase::Team;
use crate::updates::Outcome;

/// One durable record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A coordinator has started.
    Started {
        /// Its incarnation.
        incarnation: Incarnation,
        /// BLAKE3 of the resolved settings, in hexadecimal.
        config_hash: String,
    },
    /// A generation is about to be announced.
    Generation {
        /// Its number, members and lanes.
        team: Team,
        /// Index of each member in the run, by rank.
        indices: Vec<usize>,
    },
    /// A checkpoint is in the chain.
    Committed(Committed),
    /// The run is over.
    Ended {
        /// Its outcome.
        outcome: Outcome,
    },
}
