//! Turns the messages of agents into inputs of the driver.

use longtake_shared::ids::{AgentId, RunId};
use longtake_shared::protocol::{
    AgentHello, AgentMessage, AgentReport, Malformed, WorkerMessage, WorkerReport, wire,
};

use crate::driver::Input;
use crate::run::event::Event;

/// The first message of an agent; it must belong to this run.
///
/// # Errors
/// The message is malformed, not a hello, or of another run.
pub fn hello(message: wire::AgentMessage, run: &RunId) -> Result<AgentHello, Malformed> {
    let AgentReport::Hello(hello) = AgentMessage::try_from(message)?.report else {
        return Err(Malformed::Missing("hello"));
    };
    if hello.run == *run {
        Ok(hello)
    } else {
        Err(Malformed::OtherRun { theirs: hello.run.0, ours: run.0.clone() })
    }
}

/// The driver's input for any later message of an agent.
///
/// # Errors
/// The message is a second hello.
pub fn input(agent: &AgentId, report: AgentReport) -> Result<Input, Malformed> {
    let event = match report {
        AgentReport::Hello(_) => return Err(Malformed::Missing("a report after the hello")),
        AgentReport::Renewal { doing } => Event::AgentRenewed { agent: agent.clone(), doing },
        AgentReport::FromWorker { worker, message } => match message {
            WorkerMessage::Hello(hello) => {
                Event::WorkerJoined { worker, ring_address: hello.ring_address, pid: hello.pid }
            }
            WorkerMessage::Report { identity, report: WorkerReport::Detections(found) } => {
                return Ok(Input::Detections { worker, identity, found });
            }
            WorkerMessage::Report { identity, report } => Event::FromWorker { worker, identity, report },
        },
        AgentReport::WorkerExited(end) => Event::WorkerExited(end),
        AgentReport::StartFailed { worker, message } => Event::StartFailed { worker, message },
        AgentReport::WorkerHung { worker, doing, deadline, log } => {
            Event::WorkerHung { worker, doing, deadline, log }
        }
    };
    Ok(Input::Event(event))
}

#[cfg(test)]
mod tests {
    use longtake_shared::ids::{Generation, Incarnation, Rank, Step, WorkerId};
    use longtake_shared::protocol::{Identity, VideoDetections};

    use super::*;

    fn first(run: &str) -> wire::AgentMessage {
        let hello = AgentHello {
            run: RunId(run.into()),
            agent: AgentId("a".into()),
            host: "node".into(),
            slots: 1,
            held: vec![],
            ended: vec![],
        };
        AgentMessage { incarnation: Incarnation(0), report: AgentReport::Hello(hello) }.into()
    }

    #[test]
    fn an_agent_of_another_run_is_refused() {
        let ours = RunId("ours".into());
        assert_eq!(hello(first("ours"), &ours).map(|hello| hello.slots), Ok(1));
        let (theirs, run) = ("other".to_owned(), "ours".to_owned());
        assert_eq!(hello(first("other"), &ours), Err(Malformed::OtherRun { theirs, ours: run }));
        let renewal =
            AgentMessage { incarnation: Incarnation(0), report: AgentReport::Renewal { doing: vec![] } };
        assert_eq!(hello(renewal.into(), &ours), Err(Malformed::Missing("hello")));
    }

    #[test]
    fn a_second_hello_is_refused_and_detections_bypass_the_engine() {
        let agent = AgentId("a".into());
        let again = AgentMessage::try_from(first("ours")).unwrap().report;
        assert!(input(&agent, again).is_err());
        let worker = WorkerId("w0.1.0".into());
        let identity = Identity { generation: Generation(2), rank: Rank(1), ..Identity::default() };
        let from = |report| AgentReport::FromWorker {
            worker: worker.clone(),
            message: WorkerMessage::Report { identity: identity.clone(), report },
        };
        let found = VideoDetections { step: Step(7), video: "v".into(), detections: vec![] };
        let given = input(&agent, from(WorkerReport::Detections(found.clone())));
        assert!(matches!(given, Ok(Input::Detections { found: stored, .. }) if stored == found));
        let done = WorkerReport::ValidationDone { step: Step(7) };
        let expected =
            Event::FromWorker { worker: worker.clone(), identity: identity.clone(), report: done.clone() };
        assert!(matches!(input(&agent, from(done)), Ok(Input::Event(event)) if event == expected));
    }
}
