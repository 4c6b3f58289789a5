//! Checkpoints of one run in an object store: parts, manifests, the chain of commits.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::appender::Appender;
use super::commit::{Commit, Entry, Sequence};
use super::manifest::{Manifest, ManifestError};
use super::{ContentHash, PartRef};
use crate::config::RunConfig;
use crate::hint::Hint;
use crate::ids::{Generation, Incarnation, Step};
use crate::objects::{Created, LocationError, ObjectError, Objects, PutPayload};

/// Objects that are read at a time where many are.
const READS_AT_A_TIME: usize = 8;

/// Checkpoints of one run. Cheap to clone; any number of processes may read and put parts at a time.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    pub(super) objects: Objects,
}

/// Where a manifest lies and what it must hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRef {
    /// Name of its object, below the run.
    pub object: String,
    /// Its hash and size.
    pub content: PartRef,
}

/// A checkpoint that the chain says exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the chain.
    pub sequence: Sequence,
    /// Who committed it.
    pub incarnation: Incarnation,
    /// Steps of its stage that it contains.
    pub step: Step,
    /// Membership under which it was saved.
    pub generation: Generation,
    /// Its manifest.
    pub manifest: ManifestRef,
    /// Whether its validation was the best so far.
    pub best: bool,
}

/// An object that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("`{object}` {problem}")]
pub struct Damage {
    /// Full name of the object.
    pub object: String,
    /// What is wrong with it, as the rest of a sentence that begins with its name.
    pub problem: String,
    /// The part that it should be, where it is one.
    pub part: Option<PartRef>,
}

/// The chain as it was read.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    /// Intact commits, oldest first.
    pub commits: Vec<Commit>,
    /// Commits that do not count, and why.
    pub damage: Vec<Damage>,
    /// The last object of the chain, intact or not.
    pub(super) tail: Option<(Sequence, ContentHash)>,
}

/// How closely a checkpoint is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every part exists and has its size.
    Sizes,
    /// Every part has its hash: all bytes are read.
    Contents,
}

/// The newest whole checkpoint.
#[derive(Debug, Clone, Default)]
pub struct Newest {
    /// The checkpoint; nothing where none is whole or there is none.
    pub found: Option<(Committed, Manifest)>,
    /// Newer ones, and commits, that were passed over because something of them is damaged.
    pub passed_over: Vec<Damage>,
}

/// What can go wrong with checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The object store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Something that must be whole is not.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A manifest cannot be written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A manifest names parts that are not there.
    #[error("the checkpoint of {step} is not complete: {problem}")]
    Incomplete {
        /// Step of the checkpoint.
        step: Step,
        /// The first part that is missing or has another size.
        problem: Damage,
    },
    /// A newer coordinator has taken over.
    #[error("incarnation {mine} of the run has been replaced by {by}: what it saves no longer counts")]
    Fenced {
        /// Who tried to append.
        mine: Incarnation,
        /// Who has taken over.
        by: Incarnation,
    },
    /// Every name that was tried is taken by something else.
    #[error("nothing can be written to `{name}`: {tries} names in a row are taken by something else")]
    Taken {
        /// What was to be written.
        name: String,
        /// How many names were tried.
        tries: u32,
    },
}

impl Hint for CheckpointError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Object(error) => error.hint(),
            Self::Damaged(_) => {
                Some("resume from an older checkpoint; the run falls back to the newest whole one".into())
            }
            Self::Manifest(error) => error.hint(),
            Self::Incomplete { .. } => Some("save again; the missing part is then written anew".into()),
            Self::Fenced { .. } => Some("stop this coordinator: the newer one goes on with the run".into()),
            Self::Taken { .. } => {
                Some("check the disk behind `checkpoint.url`: it keeps only parts of what is written".into())
            }
        }
    }
}

impl fmt::Display for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let best = if self.best { ", best so far" } else { "" };
        write!(f, "{} ({}, {}, {}{best})", self.manifest.object, self.step, self.generation, self.sequence)
    }
}

impl Committed {
    fn of(commit: &Commit) -> Option<Self> {
        match &commit.entry {
            Entry::Fence => None,
            Entry::Checkpoint { step, generation, manifest, content, best } => Some(Self {
                sequence: commit.sequence,
                incarnation: commit.incarnation,
                step: *step,
                generation: *generation,
                manifest: ManifestRef { object: manifest.clone(), content: *content },
                best: *best,
            }),
        }
    }
}

impl Chain {
    /// Checkpoints, oldest first.
    pub fn checkpoints(&self) -> impl DoubleEndedIterator<Item = Committed> {
        self.commits.iter().filter_map(Committed::of)
    }

    /// The highest incarnation that has written to the chain.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.commits.iter().map(|commit| commit.incarnation).max()
    }
}

impl CheckpointStore {
    /// Checkpoints below these objects, which are one run's.
    pub fn new(objects: Objects) -> Self {
        Self { objects }
    }

    /// The checkpoints of a run: in its own folder, or below `checkpoint.url` in a folder of its name.
    ///
    /// # Errors
    /// A URL that cannot be understood, a folder that cannot be created.
    pub fn of_run(config: &RunConfig, run_folder: &Path) -> Result<Self, LocationError> {
        let url = &config.checkpoint.url;
        let objects = if url.is_empty() {
            Objects::open(&run_folder.to_string_lossy())?
        } else {
            Objects::open(url)?.below(&config.run.name)
        };
        Ok(Self::new(objects))
    }

    /// Wins the next incarnation of the run: no two callers ever get the same one.
    ///
    /// `owner` says who asks (host, process, a random part), and is what the object holds.
    ///
    /// # Errors
    /// The object store failed.
    pub async fn claim_incarnation(&self, owner: &str) -> Result<Incarnation, CheckpointError> {
        let taken = self.objects.list("incarnations").await?;
        let numbers = taken.iter().filter_map(|(name, _)| name.strip_prefix("incarnations/")?.parse().ok());
        let mut next = numbers.max().map_or(1, |last: u64| last + 1);
        loop {
            let object = format!("incarnations/{next:010}");
            match self.objects.create(&object, Bytes::from(owner.to_owned())).await? {
                Created::New => return Ok(Incarnation(next)),
                Created::Exists => next += 1,
            }
        }
    }

    /// Puts a part unless it is there; one that is there with another size is a torn one and is written again.
    ///
    /// # Errors
    /// The object store failed.
    pub async fn put_part(&self, content: impl Into<PutPayload>) -> Result<PartRef, CheckpointError> {
        let content = content.into();
        let part = PartRef::of_payload(&content);
        if self.objects.size(&part.object()).await? != Some(part.bytes) {
            self.objects.put(&part.object(), content).await?;
        }
        Ok(part)
    }

    /// A part's bytes, hashed while they stream in.
    ///
    /// # Errors
    /// It is missing, cut short or changed (the error names the object), or the object store failed.
    pub async fn get_part(&self, part: &PartRef) -> Result<Bytes, CheckpointError> {
        match self.objects.get_hashed(&part.object()).await {
            Ok((bytes, hash)) if ContentHash::from(hash) == part.hash => Ok(bytes),
            Ok((bytes, _)) => Err(self.part_damage(part, bytes.len() as u64).into()),
            Err(ObjectError::NotFound { .. }) => Err(self.missing(&part.object(), Some(*part)).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a manifest, after a look whether all its parts are there.
    ///
    /// A checkpoint that failed before its commit may have left another manifest of that name; this one then gets the
    /// next free name.
    ///
    /// # Errors
    /// A part is missing or has another size, a number is not finite, or the object store failed.
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<ManifestRef, CheckpointError> {
        const TRIES: u32 = 32;
        let bytes = Bytes::from(manifest.encode()?);
        let sizes = self.part_sizes().await?;
        if let Some(problem) = self.first_of_wrong_size(manifest, &sizes) {
            return Err(CheckpointError::Incomplete { step: manifest.step, problem });
        }
        let content = PartRef::of(&bytes);
        let folder = manifest.folder();
        for number in 1..=TRIES {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let object = format!("{folder}{suffix}/manifest.json");
            let created = self.objects.create(&object, bytes.clone()).await?;
            if created == Created::New || self.objects.get(&object).await? == bytes {
                return Ok(ManifestRef { object, content });
            }
        }
        Err(CheckpointError::Taken { name: self.objects.full_name(&folder), tries: TRIES })
    }

    /// Takes over the chain: whatever an older incarnation appends from now on does not count.
    ///
    /// # Errors
    /// This incarnation, or a newer one, has written to the chain already; or the object store failed.
    pub async fn fence(&self, incarnation: Incarnation) -> Result<Appender, CheckpointError> {
        let chain = self.chain().await?;
        if let Some(by) = chain.incarnation().filter(|by| *by >= incarnation) {
            return Err(CheckpointError::Fenced { mine: incarnation, by });
        }
        Appender::take_over(self.clone(), incarnation, chain).await
    }

    /// Reads the chain; commits that are damaged, replaced or written after a fence are left out and named.
    ///
    /// # Errors
    /// The object store failed.
    pub async fn chain(&self) -> Result<Chain, CheckpointError> {
        let names = self.objects.list("commits").await?;
        let sequences: Vec<Sequence> =
            names.iter().filter_map(|(name, _)| Sequence::of_object(name)).collect();
        let objects: Vec<(Sequence, Bytes)> = futures::stream::iter(sequences)
            .map(|sequence| {
                let objects = self.objects.clone();
                async move { Ok::<_, CheckpointError>((sequence, objects.get(&sequence.object()).await?)) }
            })
            .buffered(READS_AT_A_TIME)
            .try_collect()
            .await?;
        let mut chain = Chain::default();
        for (sequence, bytes) in objects {
            self.add_link(&mut chain, sequence, &bytes);
        }
        Ok(chain)
    }

    /// Adds the next object of the chain, or says why it does not count.
    pub(super) fn add_link(&self, chain: &mut Chain, sequence: Sequence, bytes: &[u8]) {
        let damage = |at: Sequence, problem: String| Damage {
            object: self.objects.full_name(&at.object()),
            problem,
            part: None,
        };
        let first = chain.tail.map_or(0, |(last, _)| last.0 + 1);
        for missing in first..sequence.0 {
            chain.damage.push(damage(Sequence(missing), "is missing from the chain of commits".into()));
        }
        match Commit::decode(sequence, bytes) {
            Err(error) => chain.damage.push(damage(sequence, problem_of(&error))),
            Ok(commit) => match why_it_does_not_count(chain, &commit) {
                Some(problem) => chain.damage.push(damage(sequence, problem)),
                None => chain.commits.push(commit),
            },
        }
        chain.tail = Some((sequence, ContentHash::of(bytes)));
    }

    /// The newest checkpoint that is whole, and what was passed over to get there.
    ///
    /// # Errors
    /// The object store failed: a store that cannot be read is not taken for an empty one.
    pub async fn newest(&self, depth: Depth) -> Result<Newest, CheckpointError> {
        let chain = self.chain().await?;
        let mut newest = Newest { found: None, passed_over: chain.damage.clone() };
        for committed in chain.checkpoints().rev() {
            match self.verify(&committed, depth).await {
                Ok(manifest) => {
                    newest.found = Some((committed, manifest));
                    break;
                }
                Err(CheckpointError::Damaged(damage)) => newest.passed_over.push(damage),
                Err(error) => return Err(error),
            }
        }
        Ok(newest)
    }

    /// Looks whether a checkpoint is whole; gives its manifest.
    ///
    /// # Errors
    /// Something of it is damaged (the error names the object), or the object store failed.
    pub async fn verify(&self, committed: &Committed, depth: Depth) -> Result<Manifest, CheckpointError> {
        let manifest = self.manifest(&committed.manifest).await?;
        let sizes = self.part_sizes().await?;
        if let Some(damage) = self.first_of_wrong_size(&manifest, &sizes) {
            return Err(damage.into());
        }
        if depth == Depth::Contents {
            let mut checks = self.check_parts(manifest.parts());
            while let Some((_, damage)) = checks.next().await.transpose()? {
                damage.map_or(Ok(()), Err)?;
            }
        }
        Ok(manifest)
    }

    /// Reads parts, a few at a time, and says of each what is wrong with it.
    pub(super) fn check_parts(
        &self,
        parts: Vec<PartRef>,
    ) -> BoxStream<'static, Result<(PartRef, Option<Damage>), CheckpointError>> {
        let store = self.clone();
        futures::stream::iter(parts)
            .map(move |part| {
                let store = store.clone();
                async move {
                    let damage = match store.objects.hash(&part.object()).await {
                        Ok((hash, _)) if ContentHash::from(hash) == part.hash => None,
                        Ok((_, size)) => Some(store.part_damage(&part, size)),
                        Err(ObjectError::NotFound { .. }) => Some(store.missing(&part.object(), Some(part))),
                        Err(error) => return Err(error.into()),
                    };
                    Ok((part, damage))
                }
            })
            .buffered(READS_AT_A_TIME)
            .boxed()
    }

    /// Reads a manifest and checks it against its hash.
    ///
    /// # Errors
    /// It is missing, changed or of another format (the error names the object), or the object store failed.
    pub async fn manifest(&self, manifest: &ManifestRef) -> Result<Manifest, CheckpointError> {
        let object = self.objects.full_name(&manifest.object);
        let damaged = |problem: String| Damage { object: object.clone(), problem, part: None };
        match self.objects.get_hashed(&manifest.object).await {
            Ok((bytes, hash)) if ContentHash::from(hash) == manifest.content.hash => {
                Ok(Manifest::decode(&bytes).map_err(|error| damaged(problem_of(&error)))?)
            }
            Ok(_) => Err(damaged("does not match the hash in its commit".into()).into()),
            Err(ObjectError::NotFound { .. }) => Err(self.missing(&manifest.object, None).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Checkpoints that the chain names and that have not been swept, oldest first.
    ///
    /// # Errors
    /// The object store failed.
    pub async fn list(&self) -> Result<Vec<Committed>, CheckpointError> {
        let chain = self.chain().await?;
        let present: BTreeSet<String> =
            self.objects.list("checkpoints").await?.into_iter().map(|(name, _)| name).collect();
        Ok(chain.checkpoints().filter(|committed| present.contains(&committed.manifest.object)).collect())
    }

    /// Moves a damaged part to `damaged/`, so that the next save writes it anew instead of trusting its name.
    ///
    /// Gives whether it was moved: a part that reads well this time stays.
    ///
    /// # Errors
    /// The object store failed.
    pub async fn set_aside(&self, part: &PartRef) -> Result<bool, CheckpointError> {
        let (bytes, hash) = match self.objects.get_hashed(&part.object()).await {
            Ok(found) => found,
            Err(ObjectError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if ContentHash::from(hash) == part.hash {
            return Ok(false);
        }
        self.objects.put(&format!("damaged/{}", part.hash), bytes).await?;
        self.objects.delete(&part.object()).await?;
        Ok(true)
    }

    async fn part_sizes(&self) -> Result<BTreeMap<String, u64>, CheckpointError> {
        Ok(self.objects.list("parts").await?.into_iter().collect())
    }

    fn first_of_wrong_size(&self, manifest: &Manifest, sizes: &BTreeMap<String, u64>) -> Option<Damage> {
        manifest.parts().into_iter().find_map(|part| match sizes.get(&part.object()) {
            None => Some(self.missing(&part.object(), Some(part))),
            Some(size) if *size != part.bytes => Some(self.part_damage(&part, *size)),
            Some(_) => None,
        })
    }

    fn missing(&self, object: &str, part: Option<PartRef>) -> Damage {
        Damage { object: self.objects.full_name(object), problem: "is missing".into(), part }
    }

    fn part_damage(&self, part: &PartRef, size: u64) -> Damage {
        let problem = if size == part.bytes {
            "does not match the hash that is its name".to_owned()
        } else {
            format!("has {size} bytes instead of {}", part.bytes)
        };
        Damage { object: self.objects.full_name(&part.object()), problem, part: Some(*part) }
    }
}

/// Why an intact commit that comes next in the chain was not written by the one who may.
fn why_it_does_not_count(chain: &Chain, commit: &Commit) -> Option<String> {
    if let Some(newer) = chain.incarnation().filter(|newer| *newer > commit.incarnation) {
        return Some(format!(
            "was written by incarnation {} after {newer} had taken over",
            commit.incarnation
        ));
    }
    // Behind a damaged or missing commit the hash cannot be compared with what its writer saw.
    let last = chain.commits.last()?.sequence;
    let follows_intact = last.0 + 1 == commit.sequence.0;
    let hash = chain.tail.map(|(_, hash)| hash);
    (follows_intact && hash != commit.predecessor).then(|| format!("does not follow {last} as it stands"))
}

/// An error and its causes as the rest of a sentence.
fn problem_of(error: &dyn std::error::Error) -> String {
    let mut text = format!("does not count: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
