//! The program `longtake`: hands the command line, and the worker library where it is linked, to the coordinator.

use std::process::ExitCode;

use longtake_coordinator::worker_role::WorkerRole;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    longtake_coordinator::main(std::env::args_os(), worker_role())
}

#[cfg(feature = "worker")]
#[allow(clippy::unnecessary_wraps, reason = "without the feature there is none")]
fn worker_role() -> Option<WorkerRole> {
    use longtake_worker::role;
    Some(WorkerRole {
        work: role::work,
        synth: role::synth,
        probe: role::probe,
        carried_settings: role::carried_settings,
        detect: role::detect,
        evaluate: role::evaluate,
        import: role::import,
        starting_weights: role::starting_weights,
        bench: role::bench,
    })
}

#[cfg(not(feature = "worker"))]
#[allow(clippy::unnecessary_wraps, reason = "with the feature there is one")]
fn worker_role() -> Option<WorkerRole> {
    None
}
