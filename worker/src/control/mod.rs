//! The link of a worker to its agent; it never touches a tensor. The training thread holds a [`crate::control::Session`], whose own thread holds the connection.

mod directive;
mod inbox;
#[cfg(test)]
pub(crate) mod line;
mod link;
mod process;
mod retained;
mod session;

use std::path::PathBuf;

use longtake_shared::hint::Hint;
use longtake_shared::ids::Generation;
pub use longtake_shared::protocol::stamp::StepPhase;
pub use longtake_shared::protocol::{
    Carried, Detection, Ending, FailureScope, Flags, Kept, LaneMove, Progress, SavedParts, SavedStage, Stage,
    WorkerHello,
};

pub use directive::{Assignment, Directive};
pub use inbox::OnAbort;
pub use process::{ignore_signals, live_with_parent};
pub use session::Session;

/// A failure between a worker and its agent.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No agent listens on the socket.
    #[error("cannot connect to the agent at `{socket}`")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// A thread or file of the session cannot be created.
    #[error("cannot start the session with the agent")]
    Start(#[source] std::io::Error),
    /// The agent has ended or has closed the connection.
    #[error("the connection to the agent is lost: {0}")]
    AgentLost(String),
    /// The generation is over.
    #[error("{generation} was aborted: {reason}")]
    Aborted {
        /// The generation.
        generation: Generation,
        /// The cause.
        reason: String,
    },
    /// An answer is overdue.
    #[error("{what} did not come within {seconds:.1} s")]
    Late {
        /// The answer.
        what: String,
        /// The time limit.
        seconds: f64,
    },
    /// The agent that started this worker has ended.
    #[error("the agent that started this worker (process {agent}) is gone")]
    Orphaned {
        /// Its process id.
        agent: i32,
    },
}

impl Hint for ControlError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { .. } => {
                Some("workers are started by an agent: use `longtake train` or `longtake agent`".to_owned())
            }
            _ => None,
        }
    }
}
