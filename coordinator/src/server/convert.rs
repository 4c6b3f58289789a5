//! Between the wire's messages and the engine's: the only place that can reject a malformed message.

use std::net::SocketAddr;

use longtake_shared::ids::{Epoch, Generation, Incarnation, LaneId, Rank, RunId, Step, WorkerId};
use longtake_shared::protocol::stamp::StepPhase;
use longtake_shared::protocol::{
    Carried, Detection, Ending, ExitCause, FailureScope, Flags, Kept, PROTOCOL_VERSION, Progress, SavedParts,
    Stage, wire,
};
use longtake_shared::units::Seconds;
use wire::agent_message::Body as AgentBody;
use wire::worker_exited::Cause;
use wire::worker_message::Body as WorkerBody;

use crate::driver::Input;
use crate::run::command::Order;
use crate::run::event::{Doing, Event, HeldWorker, Identity, WorkerEnd, WorkerReport};
use crate::run::membership::AgentId;

/// A message that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// Nothing in it, or a part that must be there is not.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field whose value cannot be.
    #[error("`{field}` is `{value}`, which is not {expected}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// The other side was built with another protocol.
    #[error("{who} speaks version {theirs} of the protocol, this coordinator version {PROTOCOL_VERSION}")]
    Version {
        /// Who.
        who: &'static str,
        /// Its version.
        theirs: u32,
    },
    /// The other side belongs to another run.
    #[error("the agent belongs to run `{theirs}`, this coordinator to run `{ours}`")]
    OtherRun {
        /// Its run.
        theirs: String,
        /// This one.
        ours: String,
    },
}

/// Who an agent says it is.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentHello {
    /// Which.
    pub agent: AgentId,
    /// Where it runs.
    pub host: String,
    /// Workers it can start.
    pub slots: usize,
    /// Workers that it holds already.
    pub held: Vec<HeldWorker>,
    /// Workers that have ended since it had a coordinator.
    pub ended: Vec<WorkerEnd>,
}

/// The first message of an agent.
///
/// # Errors
/// It is not a hello, or not of this run and protocol.
pub fn hello(message: wire::AgentMessage, run: &RunId) -> Result<AgentHello, Malformed> {
    let Some(AgentBody::Hello(hello)) = message.body else { return Err(Malformed::Missing("hello")) };
    if hello.protocol != PROTOCOL_VERSION {
        return Err(Malformed::Version { who: "the agent", theirs: hello.protocol });
    }
    if hello.run != run.0 {
        return Err(Malformed::OtherRun { theirs: hello.run, ours: run.0.clone() });
    }
    Ok(AgentHello {
        agent: AgentId(hello.agent),
        host: hello.host,
        slots: hello.slots as usize,
        held: hello.workers.into_iter().map(held_worker).collect::<Result<_, _>>()?,
        ended: hello.exited.into_iter().map(worker_end).collect::<Result<_, _>>()?,
    })
}

fn held_worker(held: wire::HeldWorker) -> Result<HeldWorker, Malformed> {
    let joined = held.hello.map(|hello| Ok((ring_address(&hello)?, hello.pid))).transpose()?;
    Ok(HeldWorker { worker: WorkerId(held.worker), index: held.index as usize, joined })
}

fn worker_end(exited: wire::WorkerExited) -> Result<WorkerEnd, Malformed> {
    let cause = match exited.cause.ok_or(Malformed::Missing("worker_exited.cause"))? {
        Cause::Code(code) => ExitCause::Code(code),
        Cause::Signal(signal) => ExitCause::Signal(signal),
    };
    let last = exited.last.map(stamp).transpose()?.map(|(_, doing)| doing);
    Ok(WorkerEnd { worker: WorkerId(exited.worker), cause, log: exited.log, last })
}

/// Any later message of an agent, as what the driver takes in.
///
/// # Errors
/// It has no body, or a field whose value cannot be.
pub fn agent_message(agent: &AgentId, message: wire::AgentMessage) -> Result<Vec<Input>, Malformed> {
    let one = |event| vec![Input::Event(event)];
    Ok(match message.body.ok_or(Malformed::Missing("body"))? {
        AgentBody::Hello(_) => return Err(Malformed::Missing("anything but a second hello")),
        AgentBody::Renewal(renewal) => {
            let doing = renewal.stamps.into_iter().map(stamp).collect::<Result<Vec<_>, _>>()?;
            one(Event::AgentRenewed { agent: agent.clone(), doing })
        }
        AgentBody::FromWorker(from) => {
            let message = from.message.ok_or(Malformed::Missing("from_worker.message"))?;
            vec![worker_message(WorkerId(from.worker), message)?]
        }
        AgentBody::WorkerExited(exited) => one(Event::WorkerExited(worker_end(exited)?)),
        AgentBody::WorkerHung(hung) => {
            let (_, doing) = stamp(hung.doing.ok_or(Malformed::Missing("worker_hung.doing"))?)?;
            let (worker, deadline) = (WorkerId(hung.worker), Seconds(hung.deadline_seconds));
            one(Event::WorkerHung { worker, doing, deadline, log: hung.log })
        }
        AgentBody::StartFailed(failed) => {
            one(Event::StartFailed { worker: WorkerId(failed.worker), message: failed.message })
        }
    })
}

fn worker_message(worker: WorkerId, message: wire::WorkerMessage) -> Result<Input, Malformed> {
    let identity = message.identity.ok_or(Malformed::Missing("identity"))?;
    let identity = Identity {
        run: RunId(identity.run),
        incarnation: Incarnation(identity.incarnation),
        generation: Generation(identity.generation),
        rank: Rank(identity.rank),
    };
    let report = match message.body.ok_or(Malformed::Missing("worker_message.body"))? {
        WorkerBody::Hello(hello) => return worker_hello(worker, &hello),
        WorkerBody::Detections(found) => {
            let detections = found.detections.into_iter().map(detection).collect::<Result<Vec<_>, _>>()?;
            let (step, video) = (Step(found.step), found.video);
            return Ok(Input::Detections { worker, identity, step, video, detections });
        }
        WorkerBody::Ready(_) => WorkerReport::Ready,
        WorkerBody::Progress(told) => WorkerReport::Progress(progress(told)?),
        WorkerBody::PartsSaved(saved) => WorkerReport::PartsSaved(parts_saved(&saved)?),
        WorkerBody::ValidationDone(done) => WorkerReport::ValidationDone { step: Step(done.step) },
        WorkerBody::Warning(warning) => WorkerReport::Warning(warning.text),
        WorkerBody::CollectiveFailed(failed) => WorkerReport::CollectiveFailed { message: failed.message },
        WorkerBody::Failed(failed) => WorkerReport::Failed {
            message: failed.message,
            hint: failed.hint,
            scope: failure_scope(failed.scope)?,
            log: failed.log,
        },
        WorkerBody::Left(left) => WorkerReport::Left { kept: left.kept.map(kept).transpose()? },
        WorkerBody::Finished(finished) => WorkerReport::Finished {
            step: Step(finished.step),
            ending: if finished.stopped { Ending::Stopped } else { Ending::Completed },
        },
    };
    Ok(Input::Event(Event::FromWorker { worker, identity, report }))
}

fn worker_hello(worker: WorkerId, hello: &wire::WorkerHello) -> Result<Input, Malformed> {
    if hello.protocol != PROTOCOL_VERSION {
        return Err(Malformed::Version { who: "the worker", theirs: hello.protocol });
    }
    let ring_address = ring_address(hello)?;
    Ok(Input::Event(Event::WorkerJoined { worker, ring_address, pid: hello.pid }))
}

fn ring_address(hello: &wire::WorkerHello) -> Result<SocketAddr, Malformed> {
    hello.ring_address.parse().map_err(|_| Malformed::Field {
        field: "hello.ring_address",
        value: hello.ring_address.clone(),
        expected: "an address such as `10.0.0.1:4000`",
    })
}

fn kept(kept: wire::Kept) -> Result<Kept, Malformed> {
    Ok(Kept {
        stage: stage(kept.stage)?,
        step: Step(kept.step),
        lanes: kept.lanes.into_iter().map(LaneId).collect(),
        copies: kept.copies.into_iter().map(LaneId).collect(),
    })
}

fn progress(told: wire::Progress) -> Result<Progress, Malformed> {
    Ok(Progress {
        stage: stage(told.stage)?,
        done: told.done,
        total: told.total,
        epoch: Epoch(told.epoch),
        loss: told.loss,
        numbers: told.numbers,
        elapsed: Seconds(told.elapsed_seconds),
    })
}

fn parts_saved(saved: &wire::PartsSaved) -> Result<SavedParts, Malformed> {
    let parts = serde_json::from_str(&saved.parts_json).map_err(|error| Malformed::Field {
        field: "parts_saved.parts_json",
        value: error.to_string(),
        expected: "JSON",
    })?;
    Ok(SavedParts {
        stage: stage(saved.stage)?,
        step: Step(saved.step),
        average_map: saved.average_map,
        parts,
    })
}

/// An action that ends before it starts, or numbers that are none, would poison the report of everybody.
fn detection(found: wire::Detection) -> Result<Detection, Malformed> {
    let sound = found.score.is_finite()
        && found.start_seconds.is_finite()
        && found.end_seconds.is_finite()
        && found.start_seconds <= found.end_seconds;
    if !sound {
        return Err(Malformed::Field {
            field: "detections.detections",
            value: format!("{} s to {} s with score {}", found.start_seconds, found.end_seconds, found.score),
            expected: "a segment with a score",
        });
    }
    Ok(Detection {
        label: found.label,
        start: Seconds(found.start_seconds),
        end: Seconds(found.end_seconds),
        score: found.score,
    })
}

fn stamp(stamp: wire::Stamp) -> Result<(WorkerId, Doing), Malformed> {
    let phase = StepPhase::named(&stamp.phase).ok_or_else(|| Malformed::Field {
        field: "stamp.phase",
        value: stamp.phase.clone(),
        expected: "a phase of a step",
    })?;
    let view = Doing { step: Step(stamp.step), phase, since: Seconds(stamp.seconds) };
    Ok((WorkerId(stamp.worker), view))
}

fn stage(number: i32) -> Result<Stage, Malformed> {
    match wire::Stage::try_from(number) {
        Ok(wire::Stage::Pretrain) => Ok(Stage::Pretrain),
        Ok(wire::Stage::Memory) => Ok(Stage::Memory),
        Ok(wire::Stage::Train) => Ok(Stage::Train),
        Ok(wire::Stage::Validate) => Ok(Stage::Validate),
        _ => Err(Malformed::Field { field: "stage", value: number.to_string(), expected: "a stage" }),
    }
}

fn failure_scope(number: i32) -> Result<FailureScope, Malformed> {
    match wire::FailureScope::try_from(number) {
        Ok(wire::FailureScope::Worker) => Ok(FailureScope::Worker),
        Ok(wire::FailureScope::Checkpoint) => Ok(FailureScope::Checkpoint),
        Ok(wire::FailureScope::Run) => Ok(FailureScope::Run),
        Ok(wire::FailureScope::Forever) => Ok(FailureScope::Forever),
        _ => Err(Malformed::Field {
            field: "failed.scope",
            value: number.to_string(),
            expected: "whom a failure concerns",
        }),
    }
}

/// What every worker of a generation is given beside its place in it.
#[derive(Debug, Clone, PartialEq)]
pub struct FormContext {
    /// The run's folder, as the workers see it.
    pub run_folder: String,
    /// The resolved configuration.
    pub config_json: String,
    /// The manifest to go on from.
    pub resume_json: Option<String>,
}

/// An order as it travels.
pub fn order(order: &Order, context: &FormContext) -> wire::worker_order::Body {
    use wire::worker_order::Body;
    match order {
        Order::Form { peers, lanes, carried } => Body::Form(wire::Form {
            peers: peers.iter().map(ToString::to_string).collect(),
            lanes: lanes
                .iter()
                .map(|lanes| wire::LaneList { lanes: lanes.iter().map(|lane| lane.0).collect() })
                .collect(),
            run_folder: context.run_folder.clone(),
            config_json: context.config_json.clone(),
            resume_json: context.resume_json.clone(),
            carried: carried.as_ref().map(wire_carried),
        }),
        Order::Adopted => Body::Adopted(wire::Adopted {}),
        Order::Train => Body::Train(wire::Train {}),
        Order::Abort { reason } => Body::Abort(wire::Abort { reason: reason.clone() }),
        Order::SetFlags(flags) => {
            let Flags { stop, checkpoint, reconfigure } = *flags;
            Body::SetFlags(wire::SetFlags { stop, checkpoint, reconfigure })
        }
        Order::Committed { stage, step, sequence } => Body::Committed(wire::Committed {
            stage: wire_stage(*stage).into(),
            step: step.0,
            sequence: *sequence,
        }),
        Order::Validated { step, average_map, best } => {
            Body::Validated(wire::Validated { step: step.0, average_map: *average_map, best: *best })
        }
        Order::Shutdown => Body::Shutdown(wire::Shutdown {}),
    }
}

fn wire_carried(carried: &Carried) -> wire::Carried {
    let moves = carried.moves.iter().map(|moved| wire::LaneMove {
        lane: moved.lane.0,
        from: moved.from.0,
        copy: moved.copy,
    });
    wire::Carried {
        stage: wire_stage(carried.stage).into(),
        step: carried.step.0,
        holder: carried.holder.0,
        behind: carried.behind.iter().map(|rank| rank.0).collect(),
        moves: moves.collect(),
    }
}

fn wire_stage(stage: Stage) -> wire::Stage {
    match stage {
        Stage::Pretrain => wire::Stage::Pretrain,
        Stage::Memory => wire::Stage::Memory,
        Stage::Train => wire::Stage::Train,
        Stage::Validate => wire::Stage::Validate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_worker(body: WorkerBody) -> wire::AgentMessage {
        let identity = wire::Identity { run: "r".into(), incarnation: 1, generation: 2, rank: 3 };
        let message = wire::WorkerMessage { identity: Some(identity), body: Some(body) };
        let from = wire::FromWorker { worker: "w0.0".into(), message: Some(message) };
        wire::AgentMessage { incarnation: 1, body: Some(AgentBody::FromWorker(from)) }
    }

    fn refused(message: wire::AgentMessage) -> Malformed {
        agent_message(&AgentId("a".into()), message).unwrap_err()
    }

    #[test]
    fn a_sound_message_becomes_its_event() {
        let message = from_worker(WorkerBody::ValidationDone(wire::ValidationDone { step: 7 }));
        let mut inputs = agent_message(&AgentId("a".into()), message).unwrap();
        let identity = Identity {
            run: RunId("r".into()),
            incarnation: Incarnation(1),
            generation: Generation(2),
            rank: Rank(3),
        };
        let expected = Event::FromWorker {
            worker: WorkerId("w0.0".into()),
            identity,
            report: WorkerReport::ValidationDone { step: Step(7) },
        };
        let Some(Input::Event(event)) = inputs.pop() else { panic!("an event is expected") };
        assert_eq!((event, inputs.len()), (expected, 0));
    }

    #[test]
    fn malformed_messages_are_refused_with_their_field() {
        let progress = wire::Progress { stage: 99, ..wire::Progress::default() };
        assert!(matches!(
            refused(from_worker(WorkerBody::Progress(progress))),
            Malformed::Field { field: "stage", .. }
        ));
        let parts = wire::PartsSaved { stage: 3, parts_json: "{".into(), ..wire::PartsSaved::default() };
        assert!(matches!(
            refused(from_worker(WorkerBody::PartsSaved(parts))),
            Malformed::Field { field: "parts_saved.parts_json", .. }
        ));
        let backwards = wire::Detection { label: 0, start_seconds: 2.0, end_seconds: 1.0, score: f64::NAN };
        let detections = wire::Detections { step: 0, video: "v".into(), detections: vec![backwards] };
        assert!(matches!(
            refused(from_worker(WorkerBody::Detections(detections))),
            Malformed::Field { field: "detections.detections", .. }
        ));
        let hello = wire::WorkerHello {
            protocol: PROTOCOL_VERSION,
            ring_address: "here".into(),
            ..wire::WorkerHello::default()
        };
        assert!(matches!(
            refused(from_worker(WorkerBody::Hello(hello))),
            Malformed::Field { field: "hello.ring_address", .. }
        ));
        assert_eq!(refused(wire::AgentMessage::default()), Malformed::Missing("body"));
    }

    #[test]
    fn an_agent_of_another_run_or_protocol_is_refused() {
        let hello_of = |protocol, run: &str| wire::AgentMessage {
            incarnation: 0,
            body: Some(AgentBody::Hello(wire::AgentHello {
                protocol,
                run: run.into(),
                ..wire::AgentHello::default()
            })),
        };
        let ours = RunId("ours".into());
        assert!(hello(hello_of(PROTOCOL_VERSION, "ours"), &ours).is_ok());
        assert!(matches!(hello(hello_of(99, "ours"), &ours), Err(Malformed::Version { theirs: 99, .. })));
        assert!(matches!(hello(hello_of(PROTOCOL_VERSION, "other"), &ours), Err(Malformed::OtherRun { .. })));
    }
}
