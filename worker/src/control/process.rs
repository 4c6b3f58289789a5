//! A worker's life ends with its agent's, and with nothing that a scheduler or a terminal says to it.

use longtake_shared::protocol::AGENT_PID_VARIABLE;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

use super::ControlError;

/// Asks the kernel to kill this process when the thread that started it ends: the first act of a worker.
///
/// The request does not outlive an `exec` of another user's program and is not inherited by children.
///
/// # Errors
/// The agent is gone already: the kernel will not tell about a death that has been.
pub fn live_with_parent() -> Result<(), ControlError> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|errno| ControlError::Start(errno.into()))?;
    let agent = std::env::var(AGENT_PID_VARIABLE).ok().and_then(|pid| pid.parse::<i32>().ok());
    match agent {
        Some(agent) if getppid().map(Pid::as_raw_pid) != Some(agent) => Err(ControlError::Orphaned { agent }),
        _ => Ok(()),
    }
}

/// From now on, SIGTERM, SIGUSR1, SIGINT and SIGHUP do nothing to this process, and those that it starts have their own way with
/// them: schedulers send signals to every process of a job step, and one that ended there and then would take away the step
/// that all ranks are to save. Orders to stop come from the agent.
///
/// # Errors
/// A handler cannot be installed.
pub fn ignore_signals() -> Result<(), ControlError> {
    // Handlers outlive the runtime that installs them: they stay for as long as the process lives.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(ControlError::Start)?;
    let _within = runtime.enter();
    for kind in
        [SignalKind::terminate(), SignalKind::user_defined1(), SignalKind::interrupt(), SignalKind::hangup()]
    {
        drop(signal(kind).map_err(ControlError::Start)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_agent_there_is_nothing_to_compare() {
        assert!(live_with_parent().is_ok());
    }
}
