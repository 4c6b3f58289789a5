//! What an agent says to its coordinator, put into the words of the wire.

use std::collections::BTreeMap;
use std::time::Duration;

use longtake_shared::ids::{RunId, WorkerId};
use longtake_shared::protocol::{ExitCause, PROTOCOL_VERSION, wire};

use super::watch::Hang;
use super::{AgentIdentity, Doing, End, Terms, Worker};

pub(super) fn hello(
    identity: &AgentIdentity,
    run: &RunId,
    workers: &BTreeMap<WorkerId, Worker>,
    ends: &[End],
) -> wire::AgentHello {
    wire::AgentHello {
        protocol: PROTOCOL_VERSION,
        run: run.0.clone(),
        agent: identity.agent.0.clone(),
        host: identity.host.clone(),
        slots: identity.slots as u32,
        workers: workers
            .iter()
            .map(|(id, worker)| wire::HeldWorker {
                worker: id.0.clone(),
                index: worker.index,
                hello: worker.hello.clone(),
            })
            .collect(),
        exited: ends.iter().map(|end| end.exited.clone()).collect(),
    }
}

pub(super) fn exited(
    now: Duration,
    worker: &WorkerId,
    cause: ExitCause,
    log: Vec<String>,
    last: Option<Doing>,
) -> wire::WorkerExited {
    let cause = match cause {
        ExitCause::Code(code) => wire::worker_exited::Cause::Code(code),
        ExitCause::Signal(signal) => wire::worker_exited::Cause::Signal(signal),
    };
    let last = last.map(|doing| stamp(now, worker, doing));
    wire::WorkerExited { worker: worker.0.clone(), cause: Some(cause), log, last }
}

pub(super) fn stamp(now: Duration, worker: &WorkerId, doing: Doing) -> wire::Stamp {
    wire::Stamp {
        worker: worker.0.clone(),
        step: doing.step.0,
        phase: doing.phase.name().to_owned(),
        seconds: now.saturating_sub(doing.entered_at).as_secs_f64(),
    }
}

pub(super) fn hung(now: Duration, worker: &WorkerId, hang: &Hang) -> wire::WorkerHung {
    wire::WorkerHung {
        worker: worker.0.clone(),
        doing: Some(stamp(now, worker, hang.doing)),
        deadline_seconds: hang.deadline.as_secs_f64(),
        log: Vec::new(),
    }
}

/// A time that is none, or no lease at all, is a mistake of the coordinator: the first terms hold.
pub(super) fn terms(welcome: &wire::Welcome, first: Terms) -> Terms {
    let time = |seconds| Duration::try_from_secs_f64(seconds).ok();
    let some = |seconds| time(seconds).filter(|time| !time.is_zero());
    Terms {
        lease: some(welcome.lease_seconds).unwrap_or(first.lease),
        grace: time(welcome.coordinator_grace_seconds).unwrap_or(first.grace),
        phase_deadline: some(welcome.phase_deadline_seconds).unwrap_or(first.phase_deadline),
    }
}
