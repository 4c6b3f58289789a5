//! Removes what no kept checkpoint names, unless somebody reads.

use std::collections::BTreeSet;
use std::time::SystemTime;

use futures::{StreamExt as _, TryStreamExt as _};

use super::ContentHash;
use super::appender::Appender;
use super::commit::Sequence;
use super::retention::{Candidate, Retention, keep};
use super::store::{CheckpointError, Committed};

/// Objects that are removed at a time.
const REMOVALS_AT_A_TIME: usize = 8;

/// What was swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Manifests removed.
    pub manifests: usize,
    /// Parts removed.
    pub parts: usize,
    /// Bytes of those parts.
    pub bytes: u64,
    /// Whether parts were left for a later sweep because somebody reads.
    pub spared_for_readers: bool,
}

impl Appender {
    /// Removes manifests that are not kept, then all parts that neither a kept manifest nor a save in flight names.
    ///
    /// `in_flight` are parts of a save that has begun and is not in the chain yet. A worker that saves does not upload
    /// what is there already, so sweep between saves, or name its parts here. While there is a reader
    /// ([`super::Reading`]), no part is removed; a later sweep finds them again.
    ///
    /// # Errors
    /// A newer incarnation has taken over, or the object store failed; what is kept is whole in any case.
    pub async fn sweep(
        &mut self,
        retention: Retention,
        in_flight: &BTreeSet<ContentHash>,
        now: SystemTime,
    ) -> Result<Swept, CheckpointError> {
        self.require_newest().await?;
        let present: BTreeSet<String> =
            self.store.objects.list("checkpoints").await?.into_iter().map(|(name, _)| name).collect();
        let kept = self.kept(&present, retention).await?;
        let named: BTreeSet<&String> = kept.iter().map(|committed| &committed.manifest.object).collect();
        let removed: Vec<String> = present.iter().filter(|name| !named.contains(name)).cloned().collect();
        let mut swept = Swept { manifests: removed.len(), ..Swept::default() };
        self.remove(removed).await?;
        // Only now: whoever has read a manifest that is gone had marked itself before, see `Reading`.
        if self.store.is_read(now).await? {
            swept.spared_for_readers = true;
            return Ok(swept);
        }
        let kept: BTreeSet<Sequence> = kept.iter().map(|committed| committed.sequence).collect();
        self.manifests.retain(|sequence, _| kept.contains(sequence));
        let mut marked: BTreeSet<String> =
            self.manifests.values().flat_map(super::Manifest::parts).map(|part| part.object()).collect();
        marked.extend(in_flight.iter().map(|hash| format!("parts/{hash}")));
        let mut garbage = self.store.objects.list("parts").await?;
        garbage.retain(|(name, _)| !marked.contains(name));
        swept.parts = garbage.len();
        swept.bytes = garbage.iter().map(|(_, size)| size).sum();
        self.remove(garbage.into_iter().map(|(name, _)| name).collect()).await?;
        Ok(swept)
    }

    /// Looks whether anything comes after the last link that this appender knows, as a newer fence would.
    async fn require_newest(&mut self) -> Result<(), CheckpointError> {
        self.require_unfenced()?;
        if self.store.objects.size(&self.next().object()).await?.is_none() {
            return Ok(());
        }
        let newer = self.store.chain().await?.incarnation().filter(|by| *by > self.incarnation);
        newer.map_or(Ok(()), |by| Err(self.fenced(by)))
    }

    /// Checkpoints that stay; their manifests are known afterwards.
    async fn kept(
        &mut self,
        present: &BTreeSet<String>,
        retention: Retention,
    ) -> Result<Vec<Committed>, CheckpointError> {
        let mut there: Vec<Committed> = self.chain.checkpoints().collect();
        there.retain(|committed| present.contains(&committed.manifest.object));
        let mut candidates = Vec::new();
        for committed in &there {
            let sequence = committed.sequence;
            if !self.manifests.contains_key(&sequence) {
                match self.store.manifest(&committed.manifest).await {
                    Ok(manifest) => drop(self.manifests.insert(sequence, manifest)),
                    Err(CheckpointError::Damaged(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            let whole = self.manifests.contains_key(&sequence);
            candidates.push(Candidate { sequence, best: committed.best, whole });
        }
        let kept = keep(&candidates, retention);
        there.retain(|committed| kept.contains(&committed.sequence));
        Ok(there)
    }

    async fn remove(&self, names: Vec<String>) -> Result<(), CheckpointError> {
        futures::stream::iter(names)
            .map(|name| {
                let objects = self.store.objects.clone();
                async move { Ok::<_, CheckpointError>(objects.delete(&name).await?) }
            })
            .buffer_unordered(REMOVALS_AT_A_TIME)
            .try_collect()
            .await
    }
}
