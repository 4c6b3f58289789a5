//! Makes checkpoints real: the chain of commits behind the driver, and the best weights as a file beside it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use longtake_shared::checkpoint::{
    Appender, Best, CheckpointStore, ContentHash, Depth, Manifest, Newest, Retention, assemble,
};
use longtake_shared::hint::Failure;

use crate::commands::checkpoint::this_process;
use crate::commands::files;
use crate::driver::{Committer, Fence, Resume, Sealed, Whole};
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
    /// What lies there.
    pub(super) written: Option<ContentHash>,
}

impl Committer for ChainCommitter {
    fn fence(&mut self) -> BoxFuture<'_, Result<Fence, Failure>> {
        self.win_fence().boxed()
    }

    fn commit(&mut self, request: CommitRequest) -> BoxFuture<'_, Result<Sealed, Failure>> {
        self.commit_one(request).boxed()
    }

    fn find_whole(&mut self) -> BoxFuture<'_, Result<Whole, Failure>> {
        async {
            let Newest { found, passed_over } = find_whole(&self.store).await?;
            let found = found.map(|(_, manifest)| resume(&manifest)).transpose()?;
            Ok(Whole { found, passed_over: passed_over.iter().map(ToString::to_string).collect() })
        }
        .boxed()
    }
}

impl ChainCommitter {
    async fn win_fence(&mut self) -> Result<Fence, Failure> {
        let incarnation = self.store.claim_incarnation(&this_process()).await?;
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
        let appender =
            self.appender.as_mut().ok_or_else(|| Failure::new("a checkpoint comes before the fence"))?;
        // Workers begin the next save when they know this one to be in the chain, and no generation forms before: nothing is
        // on its way, and nobody is about to load an older one.
        if let Err(error) = appender.sweep(self.retention, &BTreeSet::new(), SystemTime::now()).await {
            tracing::warn!(%error, "old checkpoints could not be removed");
        }
        let manifest_json = serde_json::to_string(&manifest)
            .map_err(|error| Failure::new(format!("the checkpoint has no JSON form: {error}")))?;
        Ok(Sealed { sequence: sequence.0, manifest_json })
    }

    /// On a machine that has not seen the run, the best weights lie in the store alone.
    ///
    /// # Errors
    /// They are damaged, or the object store failed.
    pub(super) async fn fetch_best(&mut self) -> Result<(), Failure> {
        let best = self.store.list().await?.into_iter().rfind(|committed| committed.best);
        if let Some(best) = best.filter(|_| !self.best_weights.exists()) {
            let manifest = self.store.manifest(&best.manifest).await?;
            self.write_weights(&manifest).await?;
        }
        Ok(())
    }

    async fn write_weights(&mut self, manifest: &Manifest) -> Result<(), Failure> {
        if self.written != Some(manifest.model.hash) {
            let weights = self.store.get_part(&manifest.model).await?;
            files::write_whole(&self.best_weights, &weights)?;
            self.written = Some(manifest.model.hash);
        }
        Ok(())
    }
}

/// Reads the newest checkpoint to its last byte, and older ones until one is whole. Damaged parts of what is passed over are
/// moved out of the way: the run comes to the same bits again, and the next save must not take the damaged part of that
/// name for its own.
pub(super) async fn find_whole(store: &CheckpointStore) -> Result<Newest, Failure> {
    // A coordinator that this one replaces may still sweep.
    store.read_marked(&this_process(), SystemTime::now, Box::pin(find_whole_marked(store))).await
}

async fn find_whole_marked(store: &CheckpointStore) -> Result<Newest, Failure> {
    let newest = store.newest(Depth::Contents).await?;
    if !newest.passed_over.is_empty() {
        let whole = newest.found.as_ref().map(|(committed, _)| committed.sequence);
        for committed in store.list().await?.into_iter().filter(|committed| Some(committed.sequence) > whole)
        {
            // A manifest that cannot be read names no parts.
            let Ok(manifest) = store.manifest(&committed.manifest).await else { continue };
            for part in manifest.parts() {
                store.set_aside(&part).await?;
            }
        }
    }
    Ok(newest)
}

/// What workers are given that go on from a checkpoint.
pub(super) fn resume(manifest: &Manifest) -> Result<Resume, Failure> {
    let value = serde_json::to_value(manifest)
        .map_err(|error| Failure::new(format!("the checkpoint has no JSON form: {error}")))?;
    Ok(Resume { stage: manifest.stage, step: manifest.step, manifest: value })
}
