//! Makes checkpoints real: the chain of commits behind the driver, and the best weights as a file beside it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use longtake_shared::checkpoint::{Appender, Best, CheckpointStore, Manifest, Retention, assemble};
use longtake_shared::hint::Failure;

use crate::commands::files;
use crate::driver::{Committer, Fence, Sealed};
use crate::run::command::CommitRequest;

/// Commits the checkpoints of one run.
pub(super) struct ChainCommitter {
    /// Where they lie.
    pub(super) store: CheckpointStore,
    /// Who may append, once the fence is won.
    pub(super) appender: Option<Appender>,
    /// How many checkpoints are kept.
    pub(super) retention: Retention,
    /// Where the best weights go.
    pub(super) best_weights: PathBuf,
    /// The best validation so far.
    pub(super) best: Option<Best>,
}

impl Committer for ChainCommitter {
    fn fence(&mut self) -> BoxFuture<'_, Result<Fence, Failure>> {
        async { wait_here(self.win_fence()) }.boxed()
    }

    fn commit(&mut self, request: CommitRequest) -> BoxFuture<'_, Result<Sealed, Failure>> {
        async { wait_here(self.commit_one(request)) }.boxed()
    }
}

/// The object store's streams borrow in ways that the compiler cannot prove to be `Send` (rust-lang/rust#102211), so they
/// stay on one thread; the runtime moves its other tasks away from it.
fn wait_here<T>(work: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}

impl ChainCommitter {
    async fn win_fence(&mut self) -> Result<Fence, Failure> {
        let owner = format!("process {} {}", std::process::id(), uuid::Uuid::new_v4());
        let incarnation = self.store.claim_incarnation(&owner).await?;
        self.appender = Some(self.store.fence(incarnation).await?);
        let chain = self.store.chain().await?;
        let generation = chain.checkpoints().map(|committed| committed.generation).max().unwrap_or_default();
        Ok(Fence { incarnation, generation })
    }

    async fn commit_one(&mut self, request: CommitRequest) -> Result<Sealed, Failure> {
        let mut manifest = assemble(&request.parts)?;
        let validated = request.average_map.map(|average_map| Best { step: request.step, average_map });
        let best = validated.filter(|new| self.best.is_none_or(|old| new.average_map > old.average_map));
        manifest.best = best.or(self.best);
        let reference = self.store.put_manifest(&manifest).await?;
        let appender =
            self.appender.as_mut().ok_or_else(|| Failure::new("a checkpoint comes before the fence"))?;
        let sequence = appender.append(&manifest, &reference, best.is_some()).await?;
        self.best = manifest.best;
        // Before the first validation the newest weights are the best there are.
        if best.is_some() || self.best.is_none() {
            self.write_weights(&manifest).await?;
        }
        // Workers begin the next save when they know this one to be in the chain: nothing is in flight.
        let appender =
            self.appender.as_ref().ok_or_else(|| Failure::new("a checkpoint comes before the fence"))?;
        if let Err(error) = appender.sweep(self.retention, &BTreeSet::new()).await {
            tracing::warn!(%error, "old checkpoints could not be removed");
        }
        let manifest_json = serde_json::to_string(&manifest)
            .map_err(|error| Failure::new(format!("the checkpoint has no JSON form: {error}")))?;
        Ok(Sealed { sequence: sequence.0, manifest_json })
    }

    async fn write_weights(&self, manifest: &Manifest) -> Result<(), Failure> {
        let weights = self.store.get_part(&manifest.model).await?;
        files::write_whole(&self.best_weights, &weights)
    }
}
