//! What stands behind a run's checkpoints: a committer, and the task that hands it one request after the other.

use futures::future::BoxFuture;
use longtake_shared::hint::Failure;
use longtake_shared::ids::{Generation, Incarnation, Step};
use longtake_shared::protocol::Stage;
use tokio::sync::mpsc;

use super::{Input, LoopGone};
use crate::run::command::CommitRequest;
use crate::run::event::Event;

/// What a run's chain of checkpoints tells a coordinator that starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// This start, won by create-if-absent: no other coordinator of the run has it.
    pub incarnation: Incarnation,
    /// The newest generation that the chain knows.
    pub generation: Generation,
}

/// What makes checkpoints real.
pub trait Committer: Send {
    /// Wins an incarnation, so that no earlier coordinator of the run can commit any more.
    fn fence(&mut self) -> BoxFuture<'_, Result<Fence, Failure>>;

    /// Writes the manifest, then the commit.
    fn commit(&mut self, request: CommitRequest) -> BoxFuture<'_, Result<Sealed, Failure>>;

    /// Reads the newest checkpoint to its last byte, and older ones until one is whole.
    fn find_whole(&mut self) -> BoxFuture<'_, Result<Whole, Failure>>;
}

/// What is asked of a committer, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub enum ChainRequest {
    /// Make a checkpoint real.
    Commit(CommitRequest),
    /// Find one that is whole.
    FindWhole,
}

/// The newest whole checkpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Whole {
    /// It; nothing where none is whole or there is none.
    pub found: Option<Resume>,
    /// What was passed over, and why.
    pub passed_over: Vec<String>,
}

/// The checkpoint a run goes on from.
#[derive(Debug, Clone, PartialEq)]
pub struct Resume {
    /// The stage it was saved in.
    pub stage: Stage,
    /// Steps of it done.
    pub step: Step,
    /// Its manifest: what the workers are given.
    pub manifest: serde_json::Value,
}

/// A checkpoint that is in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its place there.
    pub sequence: u64,
    /// Its manifest, as JSON: what workers are given that go on from it.
    pub manifest_json: String,
}

/// One request to the chain after the other, until the loop has gone.
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
