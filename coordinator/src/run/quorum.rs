//! May a generation form now? A decision and its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_shared::ids::WorkerId;
use serde::{Deserialize, Serialize};

use super::membership::{Worker, WorkerState};
use super::settings::Settings;

/// Whether a generation may form, and why or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// It may, of these workers by rank.
    Form {
        /// In the order of their indices.
        members: Vec<WorkerId>,
    },
    /// Too few workers have connected.
    WorkersMissing {
        /// Workers that have.
        present: usize,
        /// Workers that are needed.
        needed: usize,
    },
    /// Members of the generation before have not left it yet.
    NotLeft {
        /// Those.
        members: Vec<WorkerId>,
    },
    /// Members of the generation before are out of sight, and may still take steps.
    OutOfSight,
    /// A whole checkpoint is being looked for.
    Searching,
    /// A checkpoint of the generation before is on its way into the chain.
    Saving,
}

/// What is asked beside who is there.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Settings of the run.
    pub settings: &'a Settings,
    /// Members of the generation before that have not left it.
    pub waiting: &'a BTreeSet<WorkerId>,
    /// Members of the generation before: they go first.
    pub before: &'a [WorkerId],
    /// No disjoint generation forms before this time.
    pub not_before: Duration,
    /// Whether it is not known which checkpoint is whole.
    pub searching: bool,
    /// Whether a checkpoint is on its way. What its members would begin at is older, and its sweep knows nothing of what they would save.
    pub saving: bool,
    /// Whether the run waits for all, because nothing presses.
    pub all: bool,
    /// Now.
    pub now: Duration,
}

/// Decides on the workers that are known now.
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
