//! Which threads a worker has, who owns them, how they end.
//!
//! The main thread trains: it alone touches tensors, and waits for the network only inside a collective. The session's
//! thread talks to the agent and may abort a collective. Loader threads decode ahead, a saver thread uploads, the memory's
//! thread writes its index; each is owned by the value of the same name and ends when that is dropped.

use std::net::SocketAddr;
use std::sync::Arc;

use longtake_shared::hint::{ExitCode, Failure, Hint as _};
use longtake_shared::ids::Generation;
use longtake_shared::role::WorkRequest;

use crate::collective::RingListener;
use crate::control::{ControlError, Directive, Ending, FailureScope, Hello, Session, live_with_parent};
use crate::train::{TrainError, generation};

/// Plays the part of one worker until its agent has nothing more for it.
///
/// # Errors
/// What made the worker fail; its agent knows it too.
pub fn run(request: &WorkRequest) -> Result<ExitCode, Failure> {
    live_with_parent()?;
    let (listener, ring_address) = RingListener::bind(SocketAddr::new(request.bind, 0)).map_err(|error| {
        Failure::new(format!("cannot listen on {} for the other workers: {error}", request.bind))
    })?;
    let hello = Hello { index: request.index, pid: std::process::id(), ring_address };
    let session = Arc::new(Session::connect(&request.socket, &request.flight, &hello)?);
    let mut exit = ExitCode::Done;
    loop {
        match session.next_directive()? {
            Directive::Form(assignment) => {
                let generation = assignment.generation;
                match generation::run(&session, &listener, *assignment) {
                    Ok((ending, step)) => {
                        exit = match ending {
                            Ending::Completed => ExitCode::Done,
                            Ending::Stopped => ExitCode::Preempted,
                        };
                        session.finished(generation, step, ending)?;
                    }
                    Err(TrainError::Collective(error)) => {
                        session.collective_failed(generation, error.to_string())?;
                    }
                    Err(TrainError::Control(ControlError::Aborted { .. })) => {}
                    Err(error) => return Err(fail(&session, generation, error)),
                }
            }
            Directive::Shutdown => return Ok(exit),
            Directive::Train { .. } | Directive::Abort { .. } | Directive::Validated { .. } => {}
        }
    }
}

/// Tells the agent why this worker cannot go on, so that the user reads the cause and not that a process ended.
fn fail(session: &Session, generation: Generation, error: TrainError) -> Failure {
    let never_restart = error.never_restart();
    let scope = if never_restart { FailureScope::Forever } else { FailureScope::Run };
    let hint = error.hint();
    let failure = Failure::from(error);
    if let Err(lost) = session.failed(generation, &failure.message, hint, scope) {
        tracing::warn!(%lost, "the agent does not know why this worker ends");
    }
    if never_restart { failure.never_restart() } else { failure }
}
