//! Asynchronous work for a command that only waits.

use std::future::Future;

use longtake_shared::hint::Failure;

/// Waits on this thread.
pub(super) fn wait_for<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map(|runtime| runtime.block_on(work))
        .map_err(|error| Failure::new(format!("the network cannot be used: {error}")))
}
