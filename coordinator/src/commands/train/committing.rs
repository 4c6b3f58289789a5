//! Makes checkpoints real: the chain of commits behind the driver, and the best weights as a file beside it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use longtake_shared::checkpoint::{Appender, Best, CheckpointStore, Manifest, Retention, assemble};
use longtake_shared::config::RunConfig;
use longtake_shared::hint::Failure;

use super::weights_file;
use crate::commands::files;
use crate::driver::{Committer, Fence};
use crate::run::command::CommitRequest;

/// Commits the checkpoints of one run.
pub(super) struct ChainCommitter {
    /// Where they lie.
    pub(super) store: CheckpointStore,
    /// Who may append, once the fence is won.
    pub(super) appender: Option<Appender>,
    /// The settings that the weights were trained with.
    pub(super) config: RunConfig,
    /// The names of the classes.
    pub(super) classes: Vec<String>,
    /// Where the best weights go.
    pub(super) best_weights: PathBuf,
    /// The best validation so far.
    pub(super) best: Option<Best>,
}

impl Committer for ChainCommitter {
    fn fence(&mut self) -> BoxFuture<'_, Result<Fence, Failure>> {
        async {
            let owner = format!("process {} {}", std::process::id(), uuid::Uuid::new_v4());
            let incarnation = self.store.claim_incarnation(&owner).await?;
            self.appender = Some(self.store.fence(incarnation).await?);
            let chain = self.store.chain().await?;
            let generation = chain.checkpoints().map(|committed| committed.generation).max().unwrap_or_default();
            Ok(Fence { incarnation, generation })
        }
        .boxed()
    }

    fn commit(&mut self, request: CommitRequest) -> BoxFuture<'_, Result<u64, Failure>> {
        self.commit_one(request).boxed()
    }
}

impl ChainCommitter {
    async fn commit_one(&mut self, request: CommitRequest) -> Result<u64, Failure> {
        let mut manifest = assemble(&request.parts)?;
        let validated = request.average_map.map(|average_map| Best { step: request.step, average_map });
        let best = validated.filter(|new| self.best.is_none_or(|old| new.average_map > old.average_map));
        manifest.best = best.or(self.best);
        let reference = self.store.put_manifest(&manifest).await?;
        let appender = self.appender.as_mut().ok_or_else(|| Failure::new("a checkpoint comes before the fence"))?;
        let sequence = appender.append(&manifest, &reference, best.is_some()).await?;
        self.best = manifest.best;
        // Before the first validation the newest weights are the best there are.
        if best.is_some() || self.best.is_none() {
            self.write_weights(&manifest).await?;
        }
        // Between two saves nothing is in flight.
        let retention = Retention { newest: self.config.checkpoint.keep };
        let appender = self.appender.as_ref().ok_or_else(|| Failure::new("a checkpoint comes before the fence"))?;
        if let Err(error) = appender.sweep(retention, &BTreeSet::new()).await {
            tracing::warn!(%error, "old checkpoints could not be removed");
        }
        Ok(sequence.0)
    }

    async fn write_weights(&self, manifest: &Manifest) -> Result<(), Failure> {
        let weights = self.store.get_part(&manifest.model).await?;
        let file = weights_file::with_metadata(&weights, &self.config, &self.classes)?;
        files::write_whole(&self.best_weights, &file)
    }
}
