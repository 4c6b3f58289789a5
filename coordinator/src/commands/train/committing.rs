//! Makes checkpoints real: the chain of commits behind the driver, and the best weights as a file beside it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use longtake_shared::checkpoint::{
    self, Appender, Best, CheckpointStore, ContentHash, Depth, Manifest, Newest, Retention, assemble,
};
use longtake_shared::hint::Failure;
use longtake_shared::protocol::Stage;

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
    /// Parts of the checkpoint that workers are told to begin at until the next commit is known. That commit may be on its
    /// way when a generation forms, and its sweep must not take from them what they have not marked yet.
    pub(super) handed_out: BTreeSet<ContentHash>,
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
            self.handed_out = found.as_ref().map(|(_, manifest)| hashes(manifest)).unwrap_or_default();
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
        // Workers begin the next save when they know this one to be in the chain: none of its parts are on their way.
        if let Err(error) = appender.sweep(self.retention, &self.handed_out, SystemTime::now()).await {
            tracing::warn!(%error, "old checkpoints could not be removed");
        }
        self.handed_out = hashes(&manifest);
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

/// The parts of a checkpoint by their names.
pub(super) fn hashes(manifest: &Manifest) -> BTreeSet<ContentHash> {
    manifest.parts().into_iter().map(|part| part.hash).collect()
}

/// What workers are given that go on from a checkpoint.
pub(super) fn resume(manifest: &Manifest) -> Result<Resume, Failure> {
    let stage = match manifest.stage {
        checkpoint::Stage::Pretrain => Stage::Pretrain,
        checkpoint::Stage::Train => Stage::Train,
    };
    let value = serde_json::to_value(manifest)
        .map_err(|error| Failure::new(format!("the checkpoint has no JSON form: {error}")))?;
    Ok(Resume { stage, step: manifest.step, manifest: value })
}

#[cfg(test)]
mod tests {
    use longtake_shared::checkpoint::{
        Conditions, Counters, FORMAT, OptimizerState, PartRef, RankParts, Settings,
    };
    use longtake_shared::config::{MemoryDtype, RunConfig};
    use longtake_shared::ids::{Generation, Incarnation, RunId, Step};
    use longtake_shared::objects::Objects;

    use super::*;

    fn manifest(step: u64, part: PartRef) -> Manifest {
        let hash = ContentHash::of(b"");
        Manifest {
            format: FORMAT,
            written_by: "0.1.0".into(),
            run: RunId("run".into()),
            incarnation: Incarnation(1),
            generation: Generation(1),
            stage: checkpoint::Stage::Train,
            step: Step(step),
            world_size: 1,
            lanes: Vec::new(),
            conditions: Conditions {
                seed: 1,
                lanes: 1,
                sampled_clips: 1,
                chunk_clips: 1,
                bucket_layout: hash,
                memory_dtype: MemoryDtype::F16,
                threads: 1,
                dataset: hash,
                source: "videos".into(),
                decoder: "embedded".into(),
                decoder_version: "1".into(),
                settings: Settings::of(&RunConfig::default()),
            },
            counters: Counters::default(),
            optimizer_state: OptimizerState::default(),
            model: part,
            optimizer: part,
            memory: Vec::new(),
            best: None,
            metrics: std::collections::BTreeMap::new(),
        }
    }

    async fn commit(committer: &mut ChainCommitter, step: u64) -> PartRef {
        let part = committer.store.put_part(format!("weights of step {step}").into_bytes()).await.unwrap();
        let parts = RankParts { manifest: Some(manifest(step, part)), memory: Vec::new() };
        let request = CommitRequest {
            incarnation: Incarnation(1),
            generation: Generation(1),
            stage: Stage::Train,
            step: Step(step),
            average_map: None,
            lanes: Vec::new(),
            parts: vec![serde_json::to_value(parts).unwrap()],
        };
        committer.commit(request).await.unwrap();
        part
    }

    #[tokio::test]
    async fn what_workers_may_be_told_to_load_outlives_the_commit_that_was_on_its_way() {
        let folder = tempfile::tempdir().unwrap();
        let mut committer = ChainCommitter {
            store: CheckpointStore::new(Objects::open("memory:///").unwrap()),
            appender: None,
            retention: Retention { newest: 1 },
            best_weights: folder.path().join("best.safetensors"),
            best: None,
            written: None,
            handed_out: BTreeSet::new(),
        };
        committer.fence().await.unwrap();
        let first = commit(&mut committer, 1).await;
        // A generation that forms now is told to load the first while the second is on its way.
        let second = commit(&mut committer, 2).await;
        committer.store.get_part(&first).await.unwrap();
        // The third holds the shares of all who had loaded.
        commit(&mut committer, 3).await;
        assert!(committer.store.get_part(&first).await.is_err());
        committer.store.get_part(&second).await.unwrap();
        assert_eq!(committer.store.list().await.unwrap().len(), 1);
    }
}
