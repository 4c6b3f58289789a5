//! What a run is told before it starts, and the deadlines that derive from its lease.

use std::time::Duration;

use longtake_shared::config::Recovery;
use longtake_shared::ids::{RunId, Step};
use longtake_shared::protocol::Stage;

/// What a run is told before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub run: RunId,
    /// Workers it wants.
    pub workers: usize,
    /// Workers without which it waits.
    pub fewest: usize,
    /// Workers that stand by beside these.
    pub spares: usize,
    /// Lanes they share.
    pub lanes: usize,
    /// What it goes on from when a worker is lost.
    pub recovery: Recovery,
    /// How long an agent that is not heard of still belongs to the run.
    pub lease: Duration,
    /// How long to wait for all workers to come at first, and for a process that was started to connect.
    pub gather_timeout: Duration,
    /// How long members that are out of sight may go on by themselves: no disjoint generation forms before.
    pub coordinator_grace: Duration,
    /// How long a phase of a step may take before anything is known of it.
    pub phase_deadline: Duration,
    /// How long a run that was asked to stop may take to save.
    pub stop_grace: Duration,
    /// The checkpoint it goes on from.
    pub started_from: Option<(Stage, Step)>,
}

/// Generations in a row without progress after which no restart mends the run.
pub const FRUITLESS_GENERATIONS: u32 = 3;

/// How often a run that waits says who is missing.
pub const NOTICE_EVERY: Duration = Duration::from_secs(10);

impl Settings {
    /// How long an agent whose link has broken may take to come back before it counts as lost.
    pub fn reconnect_grace(&self) -> Duration {
        self.lease / 2
    }

    /// How long a member may take to leave a generation that is over. It may be in the middle of a clip.
    pub fn leaving_grace(&self) -> Duration {
        self.lease * 10
    }

    /// How long workers may take to end by themselves once they are told to.
    pub fn ending_grace(&self) -> Duration {
        self.lease * 2
    }

    /// How long a run that could begin with fewer workers waits for one more after the last that came.
    pub fn join_grace(&self) -> Duration {
        self.lease * 2
    }

    /// How long a coordinator that has come back waits for the rest of a generation once it has seen a part of it.
    pub fn adoption_grace(&self) -> Duration {
        self.lease * 2
    }

    /// Worker processes that are started.
    pub fn processes(&self) -> usize {
        self.workers + self.spares
    }
}
