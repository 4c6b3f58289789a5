//! All that is wrong with the checkpoints of a run, not only the first thing.

use std::collections::BTreeMap;

use futures::StreamExt as _;

use super::PartRef;
use super::manifest::Manifest;
use super::store::{CheckpointError, CheckpointStore, Committed, Damage};

/// A checkpoint that was looked at.
#[derive(Debug, Clone)]
pub struct Examined {
    /// Which.
    pub committed: Committed,
    /// Its manifest, where that can be read.
    pub manifest: Option<Manifest>,
    /// What is wrong with its manifest or its parts.
    pub damage: Vec<Damage>,
}

/// Looks at one checkpoint after the other; a part that several of them share is read once.
#[derive(Debug)]
pub struct Examiner {
    store: CheckpointStore,
    known: BTreeMap<PartRef, Option<Damage>>,
}

impl CheckpointStore {
    /// The manifest of a checkpoint that was listed, or what is wrong with it; nothing where it has been swept since.
    ///
    /// # Errors
    /// The object store failed.
    pub async fn listed_manifest(
        &self,
        committed: &Committed,
    ) -> Result<Option<Result<Manifest, Damage>>, CheckpointError> {
        match self.manifest(&committed.manifest).await {
            Ok(manifest) => Ok(Some(Ok(manifest))),
            Err(CheckpointError::Damaged(damage)) => {
                let gone = self.objects.size(&committed.manifest.object).await?.is_none();
                Ok((!gone).then_some(Err(damage)))
            }
            Err(error) => Err(error),
        }
    }
}

impl Examiner {
    /// For the checkpoints of a run.
    pub fn new(store: CheckpointStore) -> Self {
        Self { store, known: BTreeMap::new() }
    }

    /// Reads every byte of a checkpoint; nothing where it has been swept since it was listed.
    ///
    /// # Errors
    /// The object store failed: what cannot be read is not called damaged.
    pub async fn examine(&mut self, committed: &Committed) -> Result<Option<Examined>, CheckpointError> {
        let mut examined = Examined { committed: committed.clone(), manifest: None, damage: Vec::new() };
        let manifest = match self.store.listed_manifest(committed).await? {
            None => return Ok(None),
            Some(Ok(manifest)) => manifest,
            Some(Err(damage)) => {
                examined.damage.push(damage);
                return Ok(Some(examined));
            }
        };
        let parts = manifest.parts();
        let unread = parts.iter().copied().filter(|part| !self.known.contains_key(part)).collect();
        let mut checks = self.store.check_parts(unread);
        while let Some((part, damage)) = checks.next().await.transpose()? {
            self.known.insert(part, damage);
        }
        examined.damage.extend(parts.iter().filter_map(|part| self.known.get(part)?.clone()));
        examined.manifest = Some(manifest);
        Ok(Some(examined))
    }
}
