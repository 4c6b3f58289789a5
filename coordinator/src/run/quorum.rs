//! The decision whether a generation may form now, with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_shared::ids::WorkerId;
use serde::{Deserialize, Serialize};

use super::membership::{Worker, WorkerState};
use super::settings::Settings;

/// Whether a generation may form, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// It may form.
    Form {
        /// Its members by rank, in the order of their indices.
        members: Vec<WorkerId>,
    },
    /// Too few workers are connected.
    WorkersMissing {
        /// Connected workers.
        present: usize,
        /// Required workers.
        needed: usize,
    },
    /// Members of the previous generation have not left it yet.
    NotLeft {
        /// These members.
        members: Vec<WorkerId>,
    },
    /// Members of the previous generation are unreachable and may still take steps.
    OutOfSight,
    /// The newest intact checkpoint is being searched for.
    Searching,
    /// A commit of the previous generation is in flight.
    Saving,
}

/// The inputs of the decision besides the workers.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Settings of the run.
    pub settings: &'a Settings,
    /// Members of the previous generation that have not left it.
    pub waiting: &'a BTreeSet<WorkerId>,
    /// Members of the previous generation; they are preferred.
    pub before: &'a [WorkerId],
    /// Time before which no disjoint generation may form.
    pub not_before: Duration,
    /// Whether the newest intact checkpoint is being searched for.
    pub searching: bool,
    /// Whether a commit is in flight. A new generation would start from an older checkpoint, and the sweep after the commit
    /// could remove its parts.
    pub saving: bool,
    /// Whether the run waits for all configured workers.
    pub all: bool,
    /// The current time.
    pub now: Duration,
}

/// Decides from the known workers.
pub fn decide(workers: &BTreeMap<WorkerId, Worker>, question: &Question<'_>) -> Quorum {
    let Question { settings, waiting, before, not_before, searching, saving, all, now } = *question;
    if !waiting.is_empty() {
        return Quorum::NotLeft { members: waiting.iter().cloned().collect() };
    }
    let mut present: Vec<(bool, usize, &WorkerId)> = workers
        .iter()
        .filter(|(_, worker)| matches!(worker.state, WorkerState::Joined { .. }))
        .map(|(id, worker)| (!before.contains(id), worker.index, id))
        .collect();
    let needed = if all { settings.workers } else { settings.fewest };
    if present.len() < needed {
        return Quorum::WorkersMissing { present: present.len(), needed };
    }
    if now < not_before {
        return Quorum::OutOfSight;
    }
    if searching {
        return Quorum::Searching;
    }
    if saving {
        return Quorum::Saving;
    }
    present.sort();
    present.truncate(settings.workers);
    present.sort_by_key(|(_, index, id)| (*index, *id));
    Quorum::Form { members: present.into_iter().map(|(_, _, id)| id.clone()).collect() }
}
