//! The one writer of the chain: appends commits under its fence.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::commit::{Commit, Entry, Sequence};
use super::manifest::Manifest;
use super::store::{Chain, CheckpointError, CheckpointStore, ManifestRef};
use crate::ids::Incarnation;
use crate::objects::Created;

/// Positions of the chain that are tried before a store that tears every write is given up.
const TRIES: u32 = 32;

/// Who may append to the chain: the holder of its newest fence. There is one in a coordinator.
#[derive(Debug)]
pub struct Appender {
    pub(super) store: CheckpointStore,
    pub(super) incarnation: Incarnation,
    /// The chain as it was taken over and has grown since. Only this appender's own appends move its tail: looking again
    /// would let a zombie pass a fence.
    pub(super) chain: Chain,
    /// Manifests of the chain that are known, so that a sweep need not read them again.
    pub(super) manifests: BTreeMap<Sequence, Manifest>,
    /// A commit whose writing failed, so that it may or may not be in the chain.
    unanswered: Option<Commit>,
    /// Who has taken over, once that was seen.
    fenced_by: Option<Incarnation>,
}

impl Appender {
    /// Appends a fence after the last link that was read.
    pub(super) async fn take_over(
        store: CheckpointStore,
        incarnation: Incarnation,
        chain: Chain,
    ) -> Result<Self, CheckpointError> {
        let mut appender =
            Self { store, incarnation, chain, manifests: BTreeMap::new(), unanswered: None, fenced_by: None };
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
        let entry = Entry::Checkpoint {
            step: manifest.step,
            generation: manifest.generation,
            manifest: reference.object.clone(),
            content: reference.content,
            best,
        };
        let sequence = self.append_entry(entry).await?;
        self.manifests.insert(sequence, manifest.clone());
        Ok(sequence)
    }

    /// The place in the chain that comes next.
    pub(super) fn next(&self) -> Sequence {
        self.chain.tail.map_or(Sequence(0), |(last, _)| Sequence(last.0 + 1))
    }

    /// Whether somebody has taken over, as far as that was seen.
    pub(super) fn require_unfenced(&self) -> Result<(), CheckpointError> {
        self.fenced_by.map_or(Ok(()), |by| Err(CheckpointError::Fenced { mine: self.incarnation, by }))
    }

    pub(super) fn fenced(&mut self, by: Incarnation) -> CheckpointError {
        self.fenced_by = Some(by);
        CheckpointError::Fenced { mine: self.incarnation, by }
    }

    async fn append_entry(&mut self, entry: Entry) -> Result<Sequence, CheckpointError> {
        self.require_unfenced()?;
        for _ in 0..TRIES {
            let sequence = self.next();
            let commit = Commit {
                format: super::FORMAT,
                sequence,
                predecessor: self.chain.tail.map(|(_, hash)| hash),
                incarnation: self.incarnation,
                entry: entry.clone(),
            };
            let bytes = Bytes::from(commit.encode());
            let created = self.store.objects.create(&sequence.object(), bytes.clone()).await;
            let created = match created {
                Ok(created) => created,
                Err(error) => {
                    self.unanswered = Some(commit);
                    return Err(error.into());
                }
            };
            if created == Created::New {
                self.store.add_link(&mut self.chain, sequence, &bytes);
                self.unanswered = None;
                return Ok(sequence);
            }
            let found = self.store.objects.get(&sequence.object()).await?;
            let occupant = Commit::decode(sequence, &found).ok();
            self.store.add_link(&mut self.chain, sequence, &found);
            match occupant {
                Some(other) if Some(&other) == self.unanswered.as_ref() => {
                    self.unanswered = None;
                    if other == commit {
                        return Ok(sequence);
                    }
                }
                Some(other) if other.incarnation >= self.incarnation => {
                    return Err(self.fenced(other.incarnation));
                }
                // A torn commit, or one that an older incarnation wrote before this fence: the chain goes on after it.
                _ => {}
            }
        }
        let name = self.store.objects.full_name("commits");
        Err(CheckpointError::Taken { name, tries: TRIES })
    }
}
