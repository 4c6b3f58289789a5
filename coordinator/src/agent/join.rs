//! An agent in a process of its own: it lasts longer than a coordinator, and passes stop signals on.

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::task::TaskGroup;

use super::{AgentOptions, STOP_GRACE};
use crate::operator;
use crate::run::event::StopSource;
use crate::signals::Signals;

/// Serves a run until it is over, and gives what it has ended with. The first stop signal is passed on to the coordinator; a
/// second interrupt ends the agent and its workers.
///
/// # Errors
/// The coordinator cannot be found, refuses the agent or stays lost, or what the agent needs cannot be made.
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
                    tracing::warn!(%error, "the coordinator cannot be asked to stop");
                }
            }
            end = &mut agent => return end.map_err(Failure::from),
        }
    }
}
