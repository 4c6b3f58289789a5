//! Process control of a worker: it ends with its agent and ignores the signals of schedulers and terminals.

use longtake_shared::protocol::AGENT_PID_VARIABLE;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

use super::ControlError;

/// Asks the kernel to kill this process when the thread that started it ends. A worker calls this first.
///
/// The request is cleared by an `exec` of a set-user-ID program and is not inherited by children (prctl(2)).
///
/// # Errors
/// The agent has already ended: the kernel does not report an earlier death.
pub fn live_with_parent() -> Result<(), ControlError> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|errno| ControlError::Start(errno.into()))?;
    let agent = std::env::var(AGENT_PID_VARIABLE).ok().and_then(|pid| pid.parse::<i32>().ok());
    match agent {
        Some(agent) if getppid().map(Pid::as_raw_pid) != Some(agent) => Err(ControlError::Orphaned { agent }),
        _ => Ok(()),
    }
}

/// Makes this process ignore SIGTERM, SIGUSR1, SIGINT and SIGHUP; the processes it starts keep their default reaction. Schedulers
/// signal every process of a job step, and a worker that ended at once would prevent the step that all ranks are to save.
/// Orders to stop come from the agent.
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
