//! An agent in a process of its own: it survives the loss of its coordinator and forwards stop signals.

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::task::TaskGroup;

use super::{AgentOptions, STOP_GRACE};
use crate::operator;
use crate::run::event::StopSource;
use crate::signals::Signals;

/// Serves a run until it is over, and returns its exit code. The first stop signal is forwarded to the coordinator; a second
/// interrupt ends the agent and its workers.
///
/// # Errors
/// The coordinator is not found, refuses the agent or stays lost, or a resource of the agent cannot be created.
pub async fn join_as_agent(options: AgentOptions, mut signals: Signals) -> Result<ExitCode, Failure> {
    let whereabouts = options.coordinator.clone();
    let tasks = TaskGroup::default();
    let agent = super::run(options, tasks.stop_token());
    tokio::pin!(agent);
    let mut interrupted = false;
    loop {
        tokio::select! {
            biased;
            source = signals.next() => {
                if interrupted && source == StopSource::Interrupt {
                    tasks.stop(STOP_GRACE).await;
                    agent.await.map_err(Failure::from)?;
                    return Ok(ExitCode::Failed);
                }
                interrupted |= source == StopSource::Interrupt;
                let asked = match whereabouts.look_up() {
                    Ok(contact) => operator::stop_at(&contact).await,
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = asked {
                    tracing::warn!(%error, "the request to stop could not be forwarded to the coordinator");
                }
            }
            end = &mut agent => return end.map_err(Failure::from),
        }
    }
}
