//! Builds the messages of an agent from its state.

use std::collections::BTreeMap;
use std::time::Duration;

use longtake_shared::ids::{RunId, WorkerId};
use longtake_shared::protocol::flight::FlightRecord;
use longtake_shared::protocol::{AgentHello, AgentReport, Doing, HeldWorker};
use longtake_shared::units::Seconds;

use super::watch::Hang;
use super::{AgentIdentity, End, Worker};

pub(super) fn hello(
    identity: &AgentIdentity,
    run: &RunId,
    workers: &BTreeMap<WorkerId, Worker>,
    ends: &[End],
) -> AgentReport {
    let held = workers.iter().map(|(id, worker)| HeldWorker {
        worker: id.clone(),
        index: worker.index,
        hello: worker.hello.clone(),
    });
    AgentReport::Hello(AgentHello {
        run: run.clone(),
        agent: identity.agent.clone(),
        host: identity.host.clone(),
        slots: identity.slots,
        held: held.collect(),
        ended: ends.iter().map(|end| end.exited.clone()).collect(),
    })
}

/// A record of a flight recorder as the activity of its worker at `now`.
pub(super) fn activity(now: Duration, record: FlightRecord) -> Doing {
    let since = Seconds(now.saturating_sub(record.entered_at).as_secs_f64());
    Doing { step: record.step, phase: record.phase, since }
}

/// The report of a hang; the log is added later.
pub(super) fn hung(now: Duration, worker: &WorkerId, hang: &Hang) -> AgentReport {
    AgentReport::WorkerHung {
        worker: worker.clone(),
        doing: activity(now, hang.current),
        deadline: Seconds(hang.deadline.as_secs_f64()),
        log: Vec::new(),
    }
}
