//! Workers, leases, deadlines.

use serde::{Deserialize, Serialize};

use crate::units::Seconds;

/// The processes of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// Worker processes, one a GPU (on CPU: as many as you like, at most one a lane).
    pub workers: usize,
    /// Workers without which the run waits instead of going on; 0: as many as `workers`.
    pub min_workers: usize,
    /// Worker processes beyond `workers` that stand by for one that is lost.
    pub spares: usize,
    /// What a run goes on from when a worker is lost.
    pub recovery: Recovery,
    /// Threads of each worker on CPU; 0: the machine's cores divided by the workers.
    pub threads: usize,
    /// Address the coordinator listens on; port 0 takes a free one.
    pub listen: String,
    /// How long an agent that is not heard of still belongs to the run. Renewals and deadlines derive from it.
    pub lease: Seconds,
    /// How long workers train on without a coordinator.
    pub coordinator_grace: Seconds,
    /// How long to wait for all workers to come before the run gives up.
    pub gather_timeout: Seconds,
    /// How long a phase of a step may take before enough of its kind were measured; afterwards it is five times their 99th
    /// percentile and a second.
    pub phase_deadline: Seconds,
    /// How long a run that was asked to stop may take to save: what is not saved then is left behind.
    pub stop_grace: Seconds,
    /// Steps between two digests of the parameters that ranks compare; 0: never.
    pub digest_every: u64,
    /// Bytes of a gradient bucket.
    pub bucket: crate::units::ByteCount,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            min_workers: 0,
            spares: 0,
            recovery: Recovery::Exact,
            threads: 0,
            listen: "127.0.0.1:0".into(),
            lease: Seconds(3.0),
            coordinator_grace: Seconds(60.0),
            gather_timeout: Seconds(120.0),
            phase_deadline: Seconds(120.0),
            stop_grace: Seconds(25.0),
            digest_every: 50,
            bucket: crate::units::ByteCount(25 << 20),
        }
    }
}

impl ClusterConfig {
    /// Workers without which the run waits.
    pub fn fewest_workers(&self) -> usize {
        if self.min_workers == 0 { self.workers } else { self.min_workers.min(self.workers) }
    }
}

/// What a run goes on from when a worker is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recovery {
    /// Every rank returns to the newest checkpoint: the run is what it would have been.
    Exact,
    /// The survivors go on from what they hold; lost memory comes from copies, from the newest checkpoint, or is computed anew.
    Fast,
}
