//! Threads for asynchronous work: of a command that only waits, and of a role that lasts.

use std::future::Future;

use longtake_shared::hint::Failure;
use tokio::runtime::{Builder, Runtime};

/// Threads that files may take at once. tokio starts another one whenever none is idle at that moment, up to 512, and each keeps
/// memory that it has once used: reading a chain of a thousand commits would leave hundreds of megabytes.
const FILE_THREADS: usize = 16;

/// Waits on this thread.
pub(super) fn wait_for<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = Builder::new_current_thread().max_blocking_threads(FILE_THREADS).enable_all().build();
    runtime
        .map(|runtime| runtime.block_on(work))
        .map_err(|error| Failure::new(format!("the network cannot be used: {error}")))
}

/// For a coordinator or an agent.
pub(super) fn of_role(role: &str) -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(FILE_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("the threads of the {role} cannot start: {error}")))
}
