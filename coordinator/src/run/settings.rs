//! The settings of a run, and the deadlines that derive from its lease.

use std::time::Duration;

use longtake_shared::config::Recovery;
use longtake_shared::ids::{RunId, Step};
use longtake_shared::protocol::SavedStage;

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub run: RunId,
    /// Number of workers.
    pub workers: usize,
    /// Fewest workers that a generation may have.
    pub fewest: usize,
    /// Number of spare workers.
    pub spares: usize,
    /// Number of lanes.
    pub lanes: usize,
    /// The state it continues from after the loss of a worker.
    pub recovery: Recovery,
    /// Lease: an agent that is silent for longer is declared lost.
    pub lease: Duration,
    /// Longest wait for all workers at first, and for a started process to connect.
    pub gather_timeout: Duration,
    /// How long unreachable members may continue by themselves: no disjoint generation forms before.
    pub coordinator_grace: Duration,
    /// Longest duration of a phase before enough phases of its kind were measured.
    pub phase_deadline: Duration,
    /// Longest time for the save after a request to stop.
    pub stop_grace: Duration,
    /// The checkpoint it resumes from.
    pub started_from: Option<(SavedStage, Step)>,
}

/// Generations in a row without progress that exhaust the retry budget.
pub const FRUITLESS_GENERATIONS: u32 = 3;

/// Time between two notices about missing workers.
pub const NOTICE_EVERY: Duration = Duration::from_secs(10);

impl Settings {
    /// Time for an agent to reconnect after its link broke, before it is declared lost.
    pub fn reconnect_grace(&self) -> Duration {
        self.lease / 2
    }

    /// Time for a member to leave an ended generation; it may have to finish a chunk of clips first.
    pub fn leaving_grace(&self) -> Duration {
        self.lease * 10
    }

    /// Time for dismissed workers to end by themselves.
    pub fn ending_grace(&self) -> Duration {
        self.lease * 2
    }

    /// Time that a run which could start with fewer workers waits after the latest worker joined.
    pub fn join_grace(&self) -> Duration {
        self.lease * 2
    }

    /// Time for the remaining members of a found generation to reconnect after the first.
    pub fn adoption_grace(&self) -> Duration {
        self.lease * 2
    }

    /// Number of worker processes.
    pub fn processes(&self) -> usize {
        self.workers + self.spares
    }
}
