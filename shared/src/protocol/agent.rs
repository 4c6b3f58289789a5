//! The messages between an agent and its coordinator.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::agent_message::Body as MessageBody;
use wire::agent_order::Body as OrderBody;
use wire::worker_exited::Cause;

use super::malformed::same_version;
use super::stamp::StepPhase;
use super::{Malformed, PROTOCOL_VERSION, WorkerHello, WorkerMessage, WorkerOrder, wire};
use crate::hint::ExitCode;
use crate::ids::{AgentId, Incarnation, RunId, Step, WorkerId};
use crate::units::Seconds;

/// A message of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentMessage {
    /// The coordinator start that the agent obeys; 0 before it knows one.
    pub incarnation: Incarnation,
    /// Its content.
    pub report: AgentReport,
}

/// The content of an agent's message.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentReport {
    /// The first message.
    Hello(AgentHello),
    /// The agent is alive. Sent five times per lease and answered by [`AgentCommand::Renewed`].
    Renewal {
        /// Current activity of each worker.
        doing: Vec<(WorkerId, Doing)>,
    },
    /// A message of a worker, unchanged.
    FromWorker {
        /// The worker.
        worker: WorkerId,
        /// Its message.
        message: WorkerMessage,
    },
    /// A worker's process has ended. Sent after all messages of that worker.
    WorkerExited(WorkerEnd),
    /// A worker's process could not be started.
    StartFailed {
        /// The worker.
        worker: WorkerId,
        /// The cause, as a sentence.
        message: String,
    },
    /// A worker makes no progress, or shows no sign of life.
    WorkerHung {
        /// The worker.
        worker: WorkerId,
        /// Its activity, and for how long.
        doing: Doing,
        /// The longest duration expected.
        deadline: Seconds,
        /// The last lines of its log.
        log: Vec<String>,
    },
}

/// The first message of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentHello {
    /// The run it belongs to.
    pub run: RunId,
    /// The agent.
    pub agent: AgentId,
    /// Name of its machine.
    pub host: String,
    /// Number of workers it can start.
    pub slots: usize,
    /// Workers it holds already: it has lost an earlier coordinator or its link.
    pub held: Vec<HeldWorker>,
    /// Workers that ended since then.
    pub ended: Vec<WorkerEnd>,
}

/// A worker that an agent holds when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldWorker {
    /// The worker.
    pub worker: WorkerId,
    /// Its index in the run, from 0.
    pub index: u32,
    /// Its first message; absent before it has connected to the agent.
    pub hello: Option<WorkerHello>,
}

/// The end of a worker's process.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerEnd {
    /// The worker.
    pub worker: WorkerId,
    /// How the process ended.
    pub cause: ExitCause,
    /// The last lines of its log.
    pub log: Vec<String>,
    /// Its last activity, from its flight recorder.
    pub last: Option<Doing>,
}

/// The current activity of a worker, as its agent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Doing {
    /// Steps of its stage done.
    pub step: Step,
    /// Phase of the step.
    pub phase: StepPhase,
    /// Time spent in the phase so far.
    pub since: Seconds,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// An order for an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentOrder {
    /// The coordinator start that gives it; 0 for [`AgentCommand::Renewed`].
    pub incarnation: Incarnation,
    /// Its content.
    pub command: AgentCommand,
}

/// The content of an order for an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentCommand {
    /// The agent belongs to the run.
    Welcome(Terms),
    /// Start a worker process.
    StartWorker {
        /// Id of the new process.
        worker: WorkerId,
        /// Its index in the run, from 0.
        index: u32,
    },
    /// Forward an order to a worker.
    ToWorker {
        /// The worker.
        worker: WorkerId,
        /// The order.
        order: Box<WorkerOrder>,
    },
    /// Kill all workers that still run.
    KillWorkers,
    /// Kill one worker that hangs or was declared lost.
    KillWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// The coordinator has received one renewal: the agent's lease runs from the time it was sent. It concerns the link, not
    /// the run, and has no incarnation.
    Renewed,
    /// The run is over: end with this exit code.
    Goodbye {
        /// Exit code of the run.
        exit: ExitCode,
    },
}

/// The time limits that a coordinator sets when it welcomes an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Lease: an agent that is silent for longer is declared lost.
    pub lease: Duration,
    /// How long the agent and its workers continue without a coordinator.
    pub grace: Duration,
    /// Longest duration of a phase before enough phases of its kind were measured.
    pub phase_deadline: Duration,
}

impl Terms {
    /// The terms of an agent that has not been welcomed yet.
    pub const INITIAL: Self = Self {
        lease: Duration::from_secs(1),
        grace: Duration::from_mins(1),
        phase_deadline: Duration::from_mins(2),
    };
}

impl From<AgentMessage> for wire::AgentMessage {
    fn from(message: AgentMessage) -> Self {
        let body = match message.report {
            AgentReport::Hello(hello) => MessageBody::Hello(hello.into()),
            AgentReport::Renewal { doing } => {
                let stamps = doing.into_iter().map(|(worker, doing)| stamp(worker, doing)).collect();
                MessageBody::Renewal(wire::Renewal { stamps })
            }
            AgentReport::FromWorker { worker, message } => {
                MessageBody::FromWorker(wire::FromWorker { worker: worker.0, message: Some(message.into()) })
            }
            AgentReport::WorkerExited(end) => MessageBody::WorkerExited(end.into()),
            AgentReport::StartFailed { worker, message } => {
                MessageBody::StartFailed(wire::StartFailed { worker: worker.0, message })
            }
            AgentReport::WorkerHung { worker, doing, deadline, log } => {
                MessageBody::WorkerHung(wire::WorkerHung {
                    worker: worker.0.clone(),
                    doing: Some(stamp(worker, doing)),
                    deadline_seconds: deadline.0,
                    log,
                })
            }
        };
        Self { incarnation: message.incarnation.0, body: Some(body) }
    }
}

impl TryFrom<wire::AgentMessage> for AgentMessage {
    type Error = Malformed;

    fn try_from(message: wire::AgentMessage) -> Result<Self, Malformed> {
        let report = match message.body.ok_or(Malformed::Missing("agent_message.body"))? {
            MessageBody::Hello(hello) => AgentReport::Hello(hello.try_into()?),
            MessageBody::Renewal(renewal) => {
                let doing = renewal.stamps.into_iter().map(activity).collect::<Result<_, _>>()?;
                AgentReport::Renewal { doing }
            }
            MessageBody::FromWorker(from) => {
                let message = from.message.ok_or(Malformed::Missing("from_worker.message"))?;
                AgentReport::FromWorker { worker: WorkerId(from.worker), message: message.try_into()? }
            }
            MessageBody::WorkerExited(exited) => AgentReport::WorkerExited(exited.try_into()?),
            MessageBody::StartFailed(wire::StartFailed { worker, message }) => {
                AgentReport::StartFailed { worker: WorkerId(worker), message }
            }
            MessageBody::WorkerHung(hung) => {
                let (_, doing) = activity(hung.doing.ok_or(Malformed::Missing("worker_hung.doing"))?)?;
                let (worker, deadline) = (WorkerId(hung.worker), Seconds(hung.deadline_seconds));
                AgentReport::WorkerHung { worker, doing, deadline, log: hung.log }
            }
        };
        Ok(Self { incarnation: Incarnation(message.incarnation), report })
    }
}

impl From<AgentHello> for wire::AgentHello {
    fn from(hello: AgentHello) -> Self {
        let workers = hello.held.into_iter().map(|held| wire::HeldWorker {
            worker: held.worker.0,
            index: held.index,
            hello: held.hello.map(Into::into),
        });
        Self {
            protocol: PROTOCOL_VERSION,
            run: hello.run.0,
            agent: hello.agent.0,
            host: hello.host,
            slots: u32::try_from(hello.slots).unwrap_or(u32::MAX),
            workers: workers.collect(),
            exited: hello.ended.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::AgentHello> for AgentHello {
    type Error = Malformed;

    fn try_from(hello: wire::AgentHello) -> Result<Self, Malformed> {
        same_version("the agent", hello.protocol)?;
        let held = hello.workers.into_iter().map(|held| {
            let hello = held.hello.map(WorkerHello::try_from).transpose()?;
            Ok(HeldWorker { worker: WorkerId(held.worker), index: held.index, hello })
        });
        Ok(Self {
            run: RunId(hello.run),
            agent: AgentId(hello.agent),
            host: hello.host,
            slots: hello.slots as usize,
            held: held.collect::<Result<_, _>>()?,
            ended: hello.exited.into_iter().map(WorkerEnd::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<WorkerEnd> for wire::WorkerExited {
    fn from(end: WorkerEnd) -> Self {
        let cause = match end.cause {
            ExitCause::Code(code) => Cause::Code(code),
            ExitCause::Signal(signal) => Cause::Signal(signal),
        };
        let last = end.last.map(|doing| stamp(end.worker.clone(), doing));
        Self { worker: end.worker.0, cause: Some(cause), log: end.log, last }
    }
}

impl TryFrom<wire::WorkerExited> for WorkerEnd {
    type Error = Malformed;

    fn try_from(exited: wire::WorkerExited) -> Result<Self, Malformed> {
        let cause = match exited.cause.ok_or(Malformed::Missing("worker_exited.cause"))? {
            Cause::Code(code) => ExitCause::Code(code),
            Cause::Signal(signal) => ExitCause::Signal(signal),
        };
        let last = exited.last.map(activity).transpose()?.map(|(_, doing)| doing);
        Ok(Self { worker: WorkerId(exited.worker), cause, log: exited.log, last })
    }
}

fn stamp(worker: WorkerId, doing: Doing) -> wire::Stamp {
    wire::Stamp {
        worker: worker.0,
        step: doing.step.0,
        phase: doing.phase.name().to_owned(),
        seconds: doing.since.0,
    }
}

fn activity(stamp: wire::Stamp) -> Result<(WorkerId, Doing), Malformed> {
    let phase = StepPhase::named(&stamp.phase).ok_or_else(|| Malformed::Field {
        field: "stamp.phase",
        value: stamp.phase.clone(),
        expected: "a phase of a step",
    })?;
    Ok((WorkerId(stamp.worker), Doing { step: Step(stamp.step), phase, since: Seconds(stamp.seconds) }))
}

impl From<AgentOrder> for wire::AgentOrder {
    fn from(order: AgentOrder) -> Self {
        let body = match order.command {
            AgentCommand::Welcome(terms) => OrderBody::Welcome(terms.into()),
            AgentCommand::StartWorker { worker, index } => {
                OrderBody::StartWorker(wire::StartWorker { worker: worker.0, index })
            }
            AgentCommand::ToWorker { worker, order } => {
                OrderBody::ToWorker(wire::ToWorker { worker: worker.0, order: Some((*order).into()) })
            }
            AgentCommand::KillWorkers => OrderBody::KillWorkers(wire::KillWorkers {}),
            AgentCommand::KillWorker { worker } => {
                OrderBody::KillWorker(wire::KillWorker { worker: worker.0 })
            }
            AgentCommand::Renewed => OrderBody::Renewed(wire::Renewed {}),
            AgentCommand::Goodbye { exit } => {
                OrderBody::Goodbye(wire::Goodbye { exit_code: exit.code().into() })
            }
        };
        Self { incarnation: order.incarnation.0, body: Some(body) }
    }
}

impl TryFrom<wire::AgentOrder> for AgentOrder {
    type Error = Malformed;

    fn try_from(order: wire::AgentOrder) -> Result<Self, Malformed> {
        let command = match order.body.ok_or(Malformed::Missing("agent_order.body"))? {
            OrderBody::Welcome(welcome) => AgentCommand::Welcome(welcome.into()),
            OrderBody::StartWorker(wire::StartWorker { worker, index }) => {
                AgentCommand::StartWorker { worker: WorkerId(worker), index }
            }
            OrderBody::ToWorker(to) => {
                let order = to.order.ok_or(Malformed::Missing("to_worker.order"))?;
                AgentCommand::ToWorker { worker: WorkerId(to.worker), order: Box::new(order.try_into()?) }
            }
            OrderBody::KillWorkers(_) => AgentCommand::KillWorkers,
            OrderBody::KillWorker(kill) => AgentCommand::KillWorker { worker: WorkerId(kill.worker) },
            OrderBody::Renewed(_) => AgentCommand::Renewed,
            OrderBody::Goodbye(goodbye) => {
                AgentCommand::Goodbye { exit: ExitCode::of_code(goodbye.exit_code) }
            }
        };
        Ok(Self { incarnation: Incarnation(order.incarnation), command })
    }
}

impl From<Terms> for wire::Welcome {
    fn from(terms: Terms) -> Self {
        Self {
            lease_seconds: terms.lease.as_secs_f64(),
            coordinator_grace_seconds: terms.grace.as_secs_f64(),
            phase_deadline_seconds: terms.phase_deadline.as_secs_f64(),
        }
    }
}

impl From<wire::Welcome> for Terms {
    /// An invalid duration, or a lease or deadline of zero, keeps its initial value: the coordinator that sent it is faulty,
    /// and the agent must stay able to reconnect.
    fn from(welcome: wire::Welcome) -> Self {
        let duration = |seconds| Duration::try_from_secs_f64(seconds).ok();
        let positive = |seconds| duration(seconds).filter(|duration| !duration.is_zero());
        let initial = Self::INITIAL;
        Self {
            lease: positive(welcome.lease_seconds).unwrap_or(initial.lease),
            grace: duration(welcome.coordinator_grace_seconds).unwrap_or(initial.grace),
            phase_deadline: positive(welcome.phase_deadline_seconds).unwrap_or(initial.phase_deadline),
        }
    }
}
