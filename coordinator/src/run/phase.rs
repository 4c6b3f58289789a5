//! Where a run stands: Gathering -> Forming -> Training -> (Recovering ->) Ending -> Finished.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_shared::ids::{Generation, Incarnation, LaneId, Rank, Step, WorkerId};
use longtake_shared::protocol::Ending;
use serde::{Deserialize, Serialize};

use super::command::Order;
use super::incident::Incident;
use crate::updates::Outcome;

/// The members of a generation, fixed while it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Team {
    /// Which generation.
    pub generation: Generation,
    /// The coordinator's start that formed it: its members speak under this number as long as it lives.
    pub incarnation: Incarnation,
    /// Its workers, by rank.
    pub members: Vec<WorkerId>,
    /// Their lanes, by rank.
    pub lanes: Vec<Vec<LaneId>>,
}

impl Team {
    /// The rank of a worker; nothing where it is no member.
    pub fn rank(&self, worker: &WorkerId) -> Option<Rank> {
        (0u32..).zip(&self.members).find(|(_, member)| *member == worker).map(|(rank, _)| Rank(rank))
    }

    /// How many ranks there are.
    pub fn world(&self) -> usize {
        self.members.len()
    }

    /// Who owns which lanes.
    pub fn owned(&self) -> BTreeMap<WorkerId, Vec<LaneId>> {
        self.members.iter().cloned().zip(self.lanes.iter().cloned()).collect()
    }
}

/// Where a run stands, with everything that is true only there. Times are since the coordinator's start.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Workers are being started and waited for.
    Gathering {
        /// Since when.
        since: Duration,
    },
    /// A generation is announced; its workers load their state and reach each other.
    Forming {
        /// Its members.
        team: Team,
        /// Ranks that have said so.
        ready: BTreeSet<Rank>,
        /// What its members are told, for those that may have missed it; nothing where an earlier coordinator has told it.
        order: Option<Order>,
        /// A generation of an earlier coordinator is being looked for, since then: its members may train already.
        adopted: Option<Duration>,
        /// Ranks of such a generation that have nothing more to do, with the step and the reason.
        finished: BTreeMap<Rank, (Step, Ending)>,
    },
    /// Its workers take steps.
    Training {
        /// Its members.
        team: Team,
        /// Ranks that have nothing more to do, with the step and the reason.
        finished: BTreeMap<Rank, (Step, Ending)>,
        /// Ranks that have left because all agreed to let others join.
        left: BTreeSet<Rank>,
    },
    /// A generation is over; its members leave it, and the next one forms of those that are there.
    Recovering {
        /// The generation that is over.
        team: Team,
        /// Since when.
        since: Duration,
        /// Members that have not said that they have left.
        waiting: BTreeSet<WorkerId>,
        /// Members that are out of sight may still take steps until then.
        not_before: Duration,
        /// What ended it; nothing where all agreed to let others join.
        incident: Option<Incident>,
        /// Patience is used up: none forms after it. The run ends with what is known of the cause once the members have left.
        hopeless: bool,
    },
    /// The outcome is known; workers are on their way out.
    Ending {
        /// What the run will end with.
        outcome: Outcome,
        /// Since when.
        since: Duration,
        /// What was still running has been killed.
        killed: bool,
    },
    /// Nothing runs any more.
    Finished {
        /// What the run has ended with.
        outcome: Outcome,
    },
}

/// A phase without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseKind {
    /// Workers are being started and waited for.
    Gathering,
    /// A generation loads its state.
    Forming,
    /// A generation takes steps.
    Training,
    /// A generation is over, and the next has not formed.
    Recovering,
    /// Workers are on their way out.
    Ending,
    /// Nothing runs any more.
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

    /// The live generation's members.
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
    /// Whether a run may go from here to there in one event, staying included.
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
