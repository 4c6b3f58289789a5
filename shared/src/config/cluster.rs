//! Workers, leases, deadlines.

use serde::{Deserialize, Serialize};

use crate::units::Seconds;

/// The processes of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// Worker processes, one a GPU (on CPU: as many as you like, at most one a lane).
    pub workers: usize,
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
    /// Steps between two digests of the parameters that ranks compare; 0: never.
    pub digest_every: u64,
    /// Bytes of a gradient bucket.
    pub bucket: crate::units::ByteCount,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            threads: 0,
            listen: "127.0.0.1:0".into(),
            lease: Seconds(3.0),
            coordinator_grace: Seconds(60.0),
            gather_timeout: Seconds(120.0),
            digest_every: 50,
            bucket: crate::units::ByteCount(25 << 20),
        }
    }
}
