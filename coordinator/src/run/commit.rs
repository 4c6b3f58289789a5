//! Completeness of a checkpoint: every rank of one generation has saved its parts of the same step.

use std::collections::{BTreeMap, BTreeSet};

use longtake_shared::ids::{Incarnation, Rank, Step};
use longtake_shared::protocol::{SavedParts, SavedStage};
use serde::{Deserialize, Serialize};

use super::command::CommitRequest;
use super::phase::Team;

/// A point of a run at which a checkpoint can be taken.
pub type Moment = (SavedStage, Step);

/// The parts gathered for one checkpoint.
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
    /// Checkpoints of the live generation that are in the chain or in flight.
    done: BTreeSet<Moment>,
    newest: Option<Committed>,
    /// Whether the newest intact checkpoint is being searched for.
    searching: bool,
}

/// A checkpoint in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The stage that was running.
    pub stage: SavedStage,
    /// Steps of that stage done.
    pub step: Step,
    /// Position in the chain.
    pub sequence: u64,
}

/// Whether a checkpoint may be committed, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This one may be committed.
    Commit(Moment),
    /// Another commit is in flight.
    Busy(Moment),
    /// No parts were saved.
    Nothing,
    /// These ranks have not saved their parts of the oldest checkpoint.
    Missing(Moment, Vec<Rank>),
}

impl Saves {
    /// Adds the parts of one rank. A second report for the same checkpoint replaces the first.
    pub fn add(&mut self, rank: Rank, saved: SavedParts) {
        let gathered = self.gathering.entry((saved.stage, saved.step)).or_default();
        gathered.average_map = gathered.average_map.or(saved.average_map);
        gathered.parts.insert(rank, saved.parts);
    }

    /// Decides on the oldest complete checkpoint.
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

    /// Removes a complete checkpoint and turns it into a request for the committer.
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

    /// The commit in flight is complete. False if this one is not in flight.
    pub fn committed(&mut self, committed: Committed) -> bool {
        if self.in_flight != Some((committed.stage, committed.step)) {
            return false;
        }
        self.in_flight = None;
        self.newest = Some(committed);
        true
    }

    /// The commit in flight has failed.
    pub fn failed(&mut self) {
        self.in_flight = None;
    }

    /// Drops the gathered parts of an ended generation.
    pub fn forget_gathered(&mut self) {
        self.gathering.clear();
        self.done.clear();
    }

    /// Drops the newest checkpoint, which is damaged.
    pub fn forget_newest(&mut self) {
        self.newest = None;
    }

    /// A search for the newest intact checkpoint begins. False if one is running already.
    pub fn start_search(&mut self) -> bool {
        !std::mem::replace(&mut self.searching, true)
    }

    /// The search has ended.
    pub fn end_search(&mut self) {
        self.searching = false;
    }

    /// Whether the newest intact checkpoint is being searched for.
    pub fn is_searching(&self) -> bool {
        self.searching
    }

    /// Whether the live generation has this checkpoint in the chain or in flight: a repeated report is then ignored.
    pub fn is_done(&self, moment: Moment) -> bool {
        self.done.contains(&moment)
    }

    /// The newest checkpoint committed by this coordinator.
    pub fn newest(&self) -> Option<Committed> {
        self.newest
    }

    /// The commit in flight.
    pub fn in_flight(&self) -> Option<Moment> {
        self.in_flight
    }
}
