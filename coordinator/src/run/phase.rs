//! Where a run stands: Gathering -> Forming -> Training -> Ending -> Finished.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longtake_shared::ids::{Generation, LaneId, Rank, Step, WorkerId};
use longtake_shared::protocol::Ending;
use serde::{Deserialize, Serialize};

use crate::updates::Outcome;

/// The members of a generation, fixed while it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// Which generation.
    pub generation: Generation,
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
}

/// A collective failed and nobody is known to be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicion {
    /// Who told first.
    pub rank: Rank,
    /// What it told.
    pub message: String,
    /// When.
    pub since: Duration,
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
    },
    /// Its workers take steps.
    Training {
        /// Its members.
        team: Team,
        /// Ranks that have nothing more to do, with the step and the reason.
        finished: BTreeMap<Rank, (Step, Ending)>,
        /// A collective failed; the cause is being waited for.
        suspicion: Option<Suspicion>,
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
            Self::Ending { .. } => PhaseKind::Ending,
            Self::Finished { .. } => PhaseKind::Finished,
        }
    }

    /// The live generation's members.
    pub fn team(&self) -> Option<&Team> {
        match self {
            Self::Forming { team, .. } | Self::Training { team, .. } => Some(team),
            Self::Gathering { .. } | Self::Ending { .. } | Self::Finished { .. } => None,
        }
    }
}

impl PhaseKind {
    /// Whether a run may go from here to there in one event, staying included.
    pub fn may_become(self, next: Self) -> bool {
        use PhaseKind::{Ending, Finished, Forming, Gathering, Training};
        matches!(
            (self, next),
            (Gathering, Gathering | Forming | Ending | Finished)
                | (Forming, Forming | Training | Ending | Finished)
                | (Training, Training | Ending | Finished)
                | (Ending, Ending | Finished)
                | (Finished, Finished)
        )
    }
}
