//! Which threads a worker has, who owns them, how they end.
//!
//! The main thread trains: it alone touches tensors, and waits for the network only inside a collective. The session's
//! thread talks to the agent and may abort a collective. Loader threads decode ahead, a saver thread uploads, the memory's
//! thread writes its index; each is owned by the value of the same name and ends with it. A worker lives through many
//! generations; what it holds between two is [`crate::train::state`].

use std::net::SocketAddr;
use std::sync::Arc;

use longtake_shared::hint::{ExitCode, Failure, Hint as _};
use longtake_shared::ids::Generation;
use longtake_shared::role::WorkRequest;

use crate::collective::RingListener;
use crate::control::{
    ControlError, Directive, Ending, FailureScope, Session, WorkerHello, ignore_signals, live_with_parent,
};
use crate::train::TrainError;
use crate::train::stages::generation::{Ended, Worker, connect};

/// Plays the part of one worker until its agent has nothing more for it.
///
/// # Errors
/// What made the worker fail; its agent knows it too.
pub fn run(request: &WorkRequest) -> Result<ExitCode, Failure> {
    live_with_parent()?;
    ignore_signals()?;
    let (listener, ring_address) = RingListener::bind(SocketAddr::new(request.bind, 0)).map_err(|error| {
        Failure::new(format!("cannot listen on {} for the other workers: {error}", request.bind))
    })?;
    let hello = WorkerHello { index: request.index, pid: std::process::id(), ring_address };
    let session = Arc::new(Session::connect(&request.socket, &request.flight, hello)?);
    let reach = move |assignment: &_, aborter| connect(&listener, assignment, aborter);
    let mut worker = Worker::new(Arc::clone(&session), request.index, Box::new(reach));
    serve(&session, &mut worker)
}

/// Lives through generations until the run is over.
///
/// # Errors
/// What made the worker fail; its agent knows it too.
pub fn serve(session: &Session, worker: &mut Worker) -> Result<ExitCode, Failure> {
    let mut exit = ExitCode::Done;
    let mut stay = Stay::default();
    loop {
        match session.next_directive()? {
            Directive::Form(assignment) => {
                stay.end(session, worker)?;
                let generation = assignment.generation;
                stay.living = Some(generation);
                let ended = worker.live(*assignment);
                // Whoever watches for hung phases must not take the wait for the next order for one.
                session.rest();
                match ended {
                    Ok(Ended::Finished(ending, step)) => {
                        exit = match ending {
                            Ending::Completed => ExitCode::Done,
                            Ending::Stopped => ExitCode::Preempted,
                        };
                        session.finished(generation, step, ending)?;
                    }
                    Ok(Ended::Left) => stay.end(session, worker)?,
                    Err(error) if is_ended_by_order(session, generation, &error) => {
                        stay.end(session, worker)?;
                    }
                    // The cause is mostly another's death: an abort follows.
                    Err(TrainError::Collective(error)) => {
                        session.collective_failed(generation, error.to_string())?;
                    }
                    Err(error) => return Err(fail(session, generation, error)),
                }
            }
            Directive::Abort { generation, .. } => {
                // It may have come before this worker took up the order that formed the generation.
                if stay.left.is_none_or(|left| left < generation) {
                    stay.living = Some(generation);
                }
                stay.end(session, worker)?;
            }
            Directive::Shutdown => return Ok(exit),
            Directive::Train { .. } | Directive::Validated { .. } => {}
        }
    }
}

/// Which generation a worker is in.
#[derive(Debug, Default)]
struct Stay {
    /// The generation that it has not said to have left.
    living: Option<Generation>,
    /// The newest that it has.
    left: Option<Generation>,
}

impl Stay {
    /// Says that the worker has left its generation, and what it holds, once.
    fn end(&mut self, session: &Session, worker: &Worker) -> Result<(), ControlError> {
        let Some(generation) = self.living.take() else { return Ok(()) };
        self.left = Some(generation);
        session.left(generation, worker.kept())
    }
}

/// Whether an error only says that the generation was ended by an order.
fn is_ended_by_order(session: &Session, generation: Generation, error: &TrainError) -> bool {
    match error {
        TrainError::Control(ControlError::Aborted { .. }) => true,
        TrainError::Collective(_) => session.over(generation).is_some(),
        _ => false,
    }
}

/// Tells the agent why this worker cannot go on, so that the user reads the cause and not that a process ended.
fn fail(session: &Session, generation: Generation, error: TrainError) -> Failure {
    let scope = error.scope();
    let hint = error.hint();
    let failure = Failure::from(error);
    if let Err(lost) = session.failed(generation, &failure.message, hint, scope) {
        tracing::warn!(%lost, "the agent does not know why this worker ends");
    }
    if scope == FailureScope::Forever { failure.never_restart() } else { failure }
}
