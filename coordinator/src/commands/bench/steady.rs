//! What workers say and wait for while nothing happens but steps: real processes, counted in their flight recorders.

use std::path::Path;

use longtake_shared::bench::Count;
use longtake_shared::hint::Failure;
use longtake_shared::protocol::flight::FlightLog;

use super::cluster::{Cluster, WORKERS, members, unreadable};
use crate::worker_role::WorkerRole;

/// Steps in which messages are counted.
const STEPS: usize = 300;

/// What all workers have counted since they were started.
#[derive(Debug, Clone, Copy, Default)]
struct Words {
    /// Waits of training threads for control.
    awaited: u64,
    /// Messages that they have said.
    said: u64,
    /// The newest step that one of them is in.
    step: u64,
}

impl Words {
    fn of(logs: &[FlightLog]) -> Result<Self, Failure> {
        let mut words = Self::default();
        for log in logs {
            let flight = log.read().map_err(|error| unreadable(&error))?;
            words.awaited += flight.awaited;
            words.said += flight.said;
            words.step = words.step.max(flight.records.last().map_or(0, |record| record.step.0));
        }
        Ok(words)
    }
}

/// Counts over steps without a save, a validation or a change of members.
pub(super) fn measure(folder: &Path, worker: WorkerRole) -> Result<Vec<Count>, Failure> {
    let mut cluster = Cluster::start(folder, worker, &["checkpoint.interval=0", "checkpoint.every=0"])?;
    let status = cluster.status()?;
    let logs: Vec<FlightLog> =
        members(&status).iter().map(|member| cluster.flight(member)).collect::<Result<_, _>>()?;
    let before = Words::of(&logs)?;
    cluster.wait_for_steps(STEPS)?;
    let after = Words::of(&logs)?;
    if cluster.status()?.generation != status.generation {
        return Err(Failure::new("the run whose steps are counted has lost a worker"));
    }
    // Each has waited for its order to form and for the one to train: a counter that stands still would show here.
    if before.awaited < 2 * WORKERS as u64 {
        return Err(Failure::new("workers that have joined a run have counted no wait for control"));
    }
    let count = |name: &str, count| Count { name: name.into(), count, steps: after.step - before.step };
    Ok(vec![
        count(
            "steady step: orders or answers that a training thread waited for",
            after.awaited - before.awaited,
        ),
        count("steady step: messages queued by all workers (rank 0's progress)", after.said - before.said),
    ])
}
