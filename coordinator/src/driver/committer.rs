//! The interface to the chain of checkpoints, and the task that passes it one request after the other.

use futures::future::BoxFuture;
use longtake_shared::hint::Failure;
use longtake_shared::ids::{Generation, Incarnation, Step};
use longtake_shared::protocol::SavedStage;
use tokio::sync::mpsc;

use super::{Input, LoopGone};
use crate::run::command::CommitRequest;
use crate::run::event::Event;

/// The result of fencing the chain of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// This coordinator start, claimed by create-if-absent: no other coordinator of the run has it.
    pub incarnation: Incarnation,
    /// The newest generation in the chain.
    pub generation: Generation,
}

/// Commits checkpoints to the chain.
pub trait Committer: Send {
    /// Claims an incarnation, so that no earlier coordinator of the run can commit any more.
    fn fence(&mut self) -> BoxFuture<'_, Result<Fence, Failure>>;

    /// Writes the manifest, then the commit.
    fn commit(&mut self, request: CommitRequest) -> BoxFuture<'_, Result<Sealed, Failure>>;

    /// Verifies every byte of the newest checkpoint, and of older ones until one is intact.
    fn find_whole(&mut self) -> BoxFuture<'_, Result<Whole, Failure>>;
}

/// A request to the committer.
#[derive(Debug, Clone, PartialEq)]
pub enum ChainRequest {
    /// Commit a checkpoint.
    Commit(CommitRequest),
    /// Find the newest intact checkpoint.
    FindWhole,
}

/// The newest intact checkpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Whole {
    /// The checkpoint, if one is intact.
    pub found: Option<Resume>,
    /// The damage of newer checkpoints, as sentences.
    pub passed_over: Vec<String>,
}

/// The checkpoint a run resumes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Resume {
    /// The stage that was running.
    pub stage: SavedStage,
    /// Steps of that stage done.
    pub step: Step,
    /// Its manifest, for the workers.
    pub manifest: serde_json::Value,
}

/// A checkpoint that is in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Position in the chain.
    pub sequence: u64,
    /// Its manifest as JSON, for the workers that resume from it.
    pub manifest_json: String,
}

/// Executes one request after the other, until the loop ends.
pub(super) async fn keep_chain(
    mut committer: Box<dyn Committer>,
    mut requests: mpsc::UnboundedReceiver<ChainRequest>,
    inputs: mpsc::Sender<Input>,
) -> Result<(), LoopGone> {
    while let Some(request) = requests.recv().await {
        let input = match request {
            ChainRequest::Commit(request) => {
                let (stage, step) = (request.stage, request.step);
                match committer.commit(request).await {
                    Ok(sealed) => Input::Sealed { stage, step, sealed },
                    Err(Failure { message, hint, .. }) => Input::Event(Event::CommitFailed { message, hint }),
                }
            }
            ChainRequest::FindWhole => match committer.find_whole().await {
                Ok(whole) => Input::Whole(whole),
                Err(Failure { message, hint, .. }) => {
                    Input::Event(Event::CheckpointsUnreadable { message, hint })
                }
            },
        };
        inputs.send(input).await.map_err(|_| LoopGone)?;
    }
    Ok(())
}
