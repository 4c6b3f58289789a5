//! When is a checkpoint complete? When every rank of one generation has saved its parts of the same step.

use std::collections::{BTreeMap, BTreeSet};

use longtake_shared::ids::{Incarnation, Rank, Step};
use longtake_shared::protocol::{SavedParts, Stage};
use serde::{Deserialize, Serialize};

use super::command::CommitRequest;
use super::phase::Team;

/// A moment of a run that can be saved.
pub type Moment = (Stage, Step);

/// What one moment has gathered.
#[derive(Debug, Clone, PartialEq, Default)]
struct Gathered {
    average_map: Option<f64>,
    parts: BTreeMap<Rank, serde_json::Value>,
}

/// Saves of the live generation, and the newest checkpoint of the run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Saves {
    gathering: BTreeMap<Moment, Gathered>,
    in_flight: Option<Moment>,
    /// What the live generation has in the chain, or on its way there.
    done: BTreeSet<Moment>,
    newest: Option<Committed>,
}

/// A checkpoint in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The stage that was running.
    pub stage: Stage,
    /// Steps of it done.
    pub step: Step,
    /// Its place in the chain.
    pub sequence: u64,
}

/// Whether a checkpoint may be committed, and why or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Commit(Moment),
    /// Another one is on its way into the chain.
    Busy(Moment),
    /// Nobody has saved anything.
    Nothing,
    /// These ranks have not saved their parts of the oldest one.
    Missing(Moment, Vec<Rank>),
}

impl Saves {
    /// One rank has saved. A second report of the same moment replaces the first.
    pub fn add(&mut self, rank: Rank, saved: SavedParts) {
        let gathered = self.gathering.entry((saved.stage, saved.step)).or_default();
        gathered.average_map = gathered.average_map.or(saved.average_map);
        gathered.parts.insert(rank, saved.parts);
    }

    /// Decides on the oldest moment first.
    pub fn decide(&self, world: usize) -> Decision {
        if let Some(moment) = self.in_flight {
            return Decision::Busy(moment);
        }
        let complete = self.gathering.iter().find(|(_, gathered)| gathered.parts.len() == world);
        match (complete, self.gathering.first_key_value()) {
            (Some((moment, _)), _) => Decision::Commit(*moment),
            (None, Some((moment, gathered))) => {
                let missing = (0..world as u32).map(Rank).filter(|rank| !gathered.parts.contains_key(rank));
                Decision::Missing(*moment, missing.collect())
            }
            (None, None) => Decision::Nothing,
        }
    }

    /// Takes a complete moment out, as it goes to the committer.
    pub fn start(&mut self, moment: Moment, incarnation: Incarnation, team: &Team) -> Option<CommitRequest> {
        let gathered = self.gathering.remove(&moment)?;
        self.in_flight = Some(moment);
        self.done.insert(moment);
        Some(CommitRequest {
            incarnation,
            generation: team.generation,
            stage: moment.0,
            step: moment.1,
            average_map: gathered.average_map,
            lanes: team.lanes.clone(),
            parts: gathered.parts.into_values().collect(),
        })
    }

    /// The one in flight is in the chain. False for one that is not in flight.
    pub fn committed(&mut self, committed: Committed) -> bool {
        if self.in_flight != Some((committed.stage, committed.step)) {
            return false;
        }
        self.in_flight = None;
        self.newest = Some(committed);
        true
    }

    /// The one in flight will not come into the chain.
    pub fn failed(&mut self) {
        self.in_flight = None;
    }

    /// What a generation has gathered ends with it.
    pub fn forget_gathered(&mut self) {
        self.gathering.clear();
        self.done.clear();
    }

    /// The newest checkpoint does not count any more.
    pub fn forget_newest(&mut self) {
        self.newest = None;
    }

    /// Whether the live generation has this moment in the chain, or on its way there: a rank that says it again is not heard twice.
    pub fn is_done(&self, moment: Moment) -> bool {
        self.done.contains(&moment)
    }

    /// The newest checkpoint of this coordinator's time.
    pub fn newest(&self) -> Option<Committed> {
        self.newest
    }

    /// The one on its way into the chain.
    pub fn in_flight(&self) -> Option<Moment> {
        self.in_flight
    }
}
