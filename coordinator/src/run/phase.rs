//! The phases of a run: Gathering -> Forming -> Training -> (Recovering ->) Ending -> Finished.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_shared::ids::{Generation, Incarnation, LaneId, Rank, Step, WorkerId};
use longtake_shared::protocol::{Ending, Order};
use serde::{Deserialize, Serialize};

use crate::updates::{Incident, Outcome};

/// The members of a generation, fixed while it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Team {
    /// Its number.
    pub generation: Generation,
    /// The coordinator start that formed it; its members use this incarnation until it ends.
    pub incarnation: Incarnation,
    /// Its workers, by rank.
    pub members: Vec<WorkerId>,
    /// Their lanes, by rank.
    pub lanes: Vec<Vec<LaneId>>,
}

impl Team {
    /// The rank of a worker; none if it is not a member.
    pub fn rank(&self, worker: &WorkerId) -> Option<Rank> {
        (0u32..).zip(&self.members).find(|(_, member)| *member == worker).map(|(rank, _)| Rank(rank))
    }

    /// Number of ranks.
    pub fn world(&self) -> usize {
        self.members.len()
    }

    /// The lanes of each member.
    pub fn owned(&self) -> BTreeMap<WorkerId, Vec<LaneId>> {
        self.members.iter().cloned().zip(self.lanes.iter().cloned()).collect()
    }
}

/// A phase of a run with its own state. Times are measured since the coordinator's start.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Workers are started and awaited.
    Gathering {
        /// Time of its begin.
        since: Duration,
    },
    /// A generation is announced; its workers load their state and connect to each other.
    Forming {
        /// Its members.
        team: Team,
        /// Ranks that are ready.
        ready: BTreeSet<Rank>,
        /// The order that formed it, for members that may have missed it; absent if an earlier coordinator gave it.
        order: Option<Order>,
        /// Start of the search for a generation of an earlier coordinator, whose members may already train.
        adopted: Option<Duration>,
        /// Ranks of such a generation that have finished, with the step and the reason.
        finished: BTreeMap<Rank, (Step, Ending)>,
    },
    /// The workers train.
    Training {
        /// Its members.
        team: Team,
        /// Ranks that have finished, with the step and the reason.
        finished: BTreeMap<Rank, (Step, Ending)>,
        /// Ranks that have left because all agreed to let waiting workers join.
        left: BTreeSet<Rank>,
    },
    /// A generation is over; its members leave it, and the next one forms from the connected workers.
    Recovering {
        /// The generation that is over.
        team: Team,
        /// Time of its begin.
        since: Duration,
        /// Members that have not left yet.
        waiting: BTreeSet<WorkerId>,
        /// Until this time, unreachable members may still take steps.
        not_before: Duration,
        /// The incident that ended it; absent if all agreed to let waiting workers join.
        incident: Option<Incident>,
        /// The retry budget is exhausted; no further generation will form. The run ends with the known cause once the members
        /// have left.
        hopeless: bool,
    },
    /// The outcome is known; workers are ending.
    Ending {
        /// Outcome of the run.
        outcome: Outcome,
        /// Time of its begin.
        since: Duration,
        /// Whether the remaining workers were killed.
        killed: bool,
    },
    /// All workers have ended.
    Finished {
        /// Outcome of the run.
        outcome: Outcome,
    },
}

/// A phase without its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseKind {
    /// Workers are started and awaited.
    Gathering,
    /// A generation loads its state.
    Forming,
    /// A generation trains.
    Training,
    /// A generation is over, and the next one has not formed.
    Recovering,
    /// Workers are ending.
    Ending,
    /// All workers have ended.
    Finished,
}

impl Phase {
    /// Its name.
    pub fn kind(&self) -> PhaseKind {
        match self {
            Self::Gathering { .. } => PhaseKind::Gathering,
            Self::Forming { .. } => PhaseKind::Forming,
            Self::Training { .. } => PhaseKind::Training,
            Self::Recovering { .. } => PhaseKind::Recovering,
            Self::Ending { .. } => PhaseKind::Ending,
            Self::Finished { .. } => PhaseKind::Finished,
        }
    }

    /// The members of the live generation.
    pub fn team(&self) -> Option<&Team> {
        match self {
            Self::Forming { team, .. } | Self::Training { team, .. } => Some(team),
            Self::Gathering { .. }
            | Self::Recovering { .. }
            | Self::Ending { .. }
            | Self::Finished { .. } => None,
        }
    }
}

impl PhaseKind {
    /// Whether one event may lead from this phase to `next`; a phase may also stay.
    pub fn may_become(self, next: Self) -> bool {
        use PhaseKind::{Ending, Finished, Forming, Gathering, Recovering, Training};
        matches!(
            (self, next),
            (Gathering, Gathering | Forming | Ending | Finished)
                | (Forming, Gathering | Forming | Training | Recovering | Ending | Finished)
                | (Training, Training | Recovering | Forming | Ending | Finished)
                | (Recovering, Recovering | Forming | Ending | Finished)
                | (Ending, Ending | Finished)
                | (Finished, Finished)
        )
    }
}
