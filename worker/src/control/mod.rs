//! Talks to the agent; never touches a tensor. The training thread holds a [`crate::control::Session`]; the session's own thread holds the connection.

mod convert;
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
    Assignment, Carried, Detection, Directive, Ending, FailureScope, Flags, Kept, LaneMove, Progress,
    SavedParts, Stage,
};

pub use inbox::OnAbort;
pub use process::{ignore_signals, live_with_parent};
pub use session::{Hello, Session};

/// What can go wrong between a worker and its agent.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no agent at the socket.
    #[error("cannot connect to the agent at `{socket}`")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The thread or the file that a session needs cannot be made.
    #[error("cannot start the session with the agent")]
    Start(#[source] std::io::Error),
    /// The agent is gone, or has dropped this worker.
    #[error("the connection to the agent is lost: {0}")]
    AgentLost(String),
    /// The generation that was waited for is over.
    #[error("{generation} was aborted: {reason}")]
    Aborted {
        /// Which.
        generation: Generation,
        /// Why.
        reason: String,
    },
    /// An answer did not come in time.
    #[error("{what} did not come within {seconds:.1} s")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: f64,
    },
    /// The process that started this worker is gone.
    #[error("the agent that started this worker (process {agent}) is gone")]
    Orphaned {
        /// Its process.
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
