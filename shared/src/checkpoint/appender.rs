//! The one writer of the chain: appends commits under its fence, and sweeps what no commit keeps.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::ContentHash;
use super::commit::{Commit, Entry, Sequence};
use super::manifest::Manifest;
use super::retention::{Candidate, Retention, keep};
use super::store::{CheckpointError, CheckpointStore, Committed, ManifestRef};
use crate::ids::Incarnation;
use crate::objects::Created;

/// Positions of the chain that are tried before a store that tears every write is given up.
const TRIES: u32 = 32;

/// Who may append to the chain: the holder of its newest fence. There is one in a coordinator.
#[derive(Debug)]
pub struct Appender {
    store: CheckpointStore,
    incarnation: Incarnation,
    /// The last link known. Only this appender's own appends move it: looking again would let a zombie pass a fence.
    tail: Option<(Sequence, ContentHash)>,
    /// A commit whose writing failed, so that it may or may not be in the chain.
    unanswered: Option<Commit>,
    /// Who has taken over, once that was seen.
    fenced_by: Option<Incarnation>,
}

/// What was swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Manifests removed.
    pub manifests: usize,
    /// Parts removed.
    pub parts: usize,
    /// Bytes of those parts.
    pub bytes: u64,
}

impl Appender {
    /// Appends a fence after the last link that was read.
    pub(super) async fn take_over(
        store: CheckpointStore,
        incarnation: Incarnation,
        tail: Option<(Sequence, ContentHash)>,
    ) -> Result<Self, CheckpointError> {
        let mut appender = Self { store, incarnation, tail, unanswered: None, fenced_by: None };
        appender.append_entry(Entry::Fence).await?;
        Ok(appender)
    }

    /// Makes a checkpoint real.
    ///
    /// # Errors
    /// A newer incarnation has taken over, or the object store failed; then the checkpoint may or may not exist, and
    /// it is safe to append it again.
    pub async fn append(
        &mut self,
        manifest: &Manifest,
        reference: &ManifestRef,
        best: bool,
    ) -> Result<Sequence, CheckpointError> {
        self.append_entry(Entry::Checkpoint {
            step: manifest.step,
            generation: manifest.generation,
            manifest: reference.object.clone(),
            content: reference.content,
            best,
        })
        .await
    }

    async fn append_entry(&mut self, entry: Entry) -> Result<Sequence, CheckpointError> {
        if let Some(by) = self.fenced_by {
            return Err(CheckpointError::Fenced { mine: self.incarnation, by });
        }
        for _ in 0..TRIES {
            let sequence = self.tail.map_or(Sequence(0), |(last, _)| Sequence(last.0 + 1));
            let commit = Commit {
                format: super::FORMAT,
                sequence,
                predecessor: self.tail.map(|(_, hash)| hash),
                incarnation: self.incarnation,
                entry: entry.clone(),
            };
            let bytes = commit.encode();
            let hash = ContentHash::of(&bytes);
            let created = self.store.objects.create(&sequence.object(), Bytes::from(bytes)).await;
            let created = match created {
                Ok(created) => created,
                Err(error) => {
                    self.unanswered = Some(commit);
                    return Err(error.into());
                }
            };
            if created == Created::New {
                self.tail = Some((sequence, hash));
                self.unanswered = None;
                return Ok(sequence);
            }
            let found = self.store.objects.get(&sequence.object()).await?;
            let occupant = Commit::decode(sequence, &found).ok();
            self.tail = Some((sequence, ContentHash::of(&found)));
            match occupant {
                Some(other) if Some(&other) == self.unanswered.as_ref() => {
                    self.unanswered = None;
                    if other == commit {
                        return Ok(sequence);
                    }
                }
                Some(other) if other.incarnation >= self.incarnation => {
                    self.fenced_by = Some(other.incarnation);
                    return Err(CheckpointError::Fenced { mine: self.incarnation, by: other.incarnation });
                }
                // A torn commit, or one that an older incarnation wrote before this fence: the chain goes on after it.
                _ => {}
            }
        }
        let name = self.store.objects.full_name("commits");
        Err(CheckpointError::Taken { name, tries: TRIES })
    }

    /// Removes manifests that are not kept, then all parts that neither a kept manifest nor a save in flight names.
    ///
    /// `in_flight` are parts of a save that has begun and is not in the chain yet. A worker that saves does not upload
    /// what is there already, so sweep between saves, or name its parts here.
    ///
    /// # Errors
    /// A newer incarnation has taken over, or the object store failed; what is kept is whole in any case.
    pub async fn sweep(
        &self,
        retention: Retention,
        in_flight: &BTreeSet<ContentHash>,
    ) -> Result<Swept, CheckpointError> {
        let objects = &self.store.objects;
        let chain = self.store.chain().await?;
        if let Some(by) = chain.incarnation().filter(|by| *by > self.incarnation) {
            return Err(CheckpointError::Fenced { mine: self.incarnation, by });
        }
        let mut candidates = Vec::new();
        let mut manifests = BTreeMap::new();
        let present = objects.list("checkpoints").await?;
        for committed in chain.checkpoints() {
            let listed = present.iter().any(|(name, _)| *name == committed.manifest.object);
            let manifest = if listed {
                match self.store.manifest(&committed.manifest).await {
                    Ok(manifest) => Some(manifest),
                    Err(CheckpointError::Damaged(_)) => None,
                    Err(error) => return Err(error),
                }
            } else {
                None
            };
            candidates.push(Candidate {
                sequence: committed.sequence,
                best: committed.best,
                whole: manifest.is_some(),
            });
            manifests.extend(manifest.map(|manifest| (committed.sequence, (committed, manifest))));
        }
        let kept = keep(&candidates, retention);
        let kept: Vec<&(Committed, Manifest)> =
            manifests.iter().filter(|(sequence, _)| kept.contains(sequence)).map(|(_, kept)| kept).collect();
        let mut marked: BTreeSet<String> =
            kept.iter().flat_map(|(_, manifest)| manifest.parts()).map(|part| part.object()).collect();
        marked.extend(in_flight.iter().map(|hash| format!("parts/{hash}")));
        let mut swept = Swept::default();
        for (name, _) in present {
            if !kept.iter().any(|(committed, _)| committed.manifest.object == name) {
                objects.delete(&name).await?;
                swept.manifests += 1;
            }
        }
        for (name, size) in objects.list("parts").await? {
            if !marked.contains(&name) {
                objects.delete(&name).await?;
                swept.parts += 1;
                swept.bytes += size;
            }
        }
        Ok(swept)
    }
}
