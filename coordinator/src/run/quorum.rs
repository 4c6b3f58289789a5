//! May a generation form now? A decision and its reason.

use std::collections::BTreeMap;

use longtake_shared::ids::WorkerId;
use serde::{Deserialize, Serialize};

use super::membership::{Worker, WorkerState};

/// Whether a generation may form, and why or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// It may, of these workers by rank.
    Form {
        /// In the order of their indices.
        members: Vec<WorkerId>,
    },
    /// Not all workers have connected.
    WorkersMissing {
        /// Workers that have.
        present: usize,
        /// Workers that are needed.
        needed: usize,
    },
}

/// Decides on the workers that are known now.
pub fn decide(workers: &BTreeMap<WorkerId, Worker>, needed: usize) -> Quorum {
    let mut members: Vec<(usize, &WorkerId)> = workers
        .iter()
        .filter(|(_, worker)| matches!(worker.state, WorkerState::Joined { .. }))
        .map(|(id, worker)| (worker.index, id))
        .collect();
    if members.len() < needed {
        return Quorum::WorkersMissing { present: members.len(), needed };
    }
    members.sort();
    Quorum::Form { members: members.into_iter().map(|(_, id)| id.clone()).collect() }
}
