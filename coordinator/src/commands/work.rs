//! `longtake worker`: a worker of a run. Its agent starts it and reads its exit code.

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::WorkRequest;

use super::Session;
use crate::cli::WorkerArgs;

pub(super) fn run(args: &WorkerArgs, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("worker")?;
    (worker.work)(&WorkRequest {
        socket: args.socket.clone(),
        index: args.index,
        bind: args.bind,
        flight: args.flight.clone(),
    })
}
