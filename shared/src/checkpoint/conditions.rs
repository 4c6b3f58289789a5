//! Under which conditions a run's numbers are what they are, and what differs when it is resumed under others.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ContentHash;
use crate::config::{MemoryDtype, RunConfig, binds_training};
use crate::hint::Hint;

/// All that must be the same for a resumed run to be, bit for bit, the run that was interrupted.
///
/// The number of workers is not among them: with another one the run goes on, equal up to rounding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// Seed of every random draw.
    pub seed: u64,
    /// Lanes: samples of a step over all workers.
    pub lanes: usize,
    /// The sampling rate r as what it amounts to: clips of a window that train the backbone in a step.
    pub sampled_clips: usize,
    /// Clips that pass through the backbone together.
    pub chunk_clips: usize,
    /// Hash of the order and the sizes of the gradient buckets.
    pub bucket_layout: ContentHash,
    /// Type in which remembered rows are stored.
    pub memory_dtype: MemoryDtype,
    /// Threads that compute in one worker; sums are split by it.
    pub threads: usize,
    /// Fingerprint of the data set: ids, subsets, lengths and actions of all videos, names of the classes.
    pub dataset: ContentHash,
    /// What the frames come from: `videos`, or `shards` of an ingested set.
    pub source: String,
    /// Decoder that turned videos into frames.
    pub decoder: String,
    /// Its version.
    pub decoder_version: String,
    /// The settings that training depends on.
    pub settings: Settings,
}

/// The settings that training depends on, with their hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Hash of [`Self::resolved`] without the keys that change nothing about training.
    pub hash: ContentHash,
    /// All settings as they were resolved from defaults, file, environment and command line.
    pub resolved: Value,
}

impl Settings {
    /// The settings of a run.
    pub fn of(config: &RunConfig) -> Self {
        let resolved = serde_json::to_value(config).expect("settings are numbers, texts and lists of them");
        let binding = Value::Object(binding(&resolved));
        Self { hash: ContentHash::of(binding.to_string().as_bytes()), resolved }
    }
}

/// The settings that training depends on, by dotted key.
fn binding(resolved: &Value) -> Map<String, Value> {
    fn leaves(prefix: &str, value: &Value, found: &mut Map<String, Value>) {
        match value {
            Value::Object(section) => {
                for (key, value) in section {
                    let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    leaves(&path, value, found);
                }
            }
            leaf if binds_training(prefix) => {
                found.insert(prefix.to_owned(), leaf.clone());
            }
            _ => {}
        }
    }
    let mut found = Map::new();
    leaves("", resolved, &mut found);
    found
}

/// One condition that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// Which: a name of [`Conditions`], or a setting's key such as `optim.learning_rate`.
    pub what: String,
    /// What it was when the checkpoint was saved.
    pub then: String,
    /// What it is now.
    pub now: String,
}

/// A checkpoint of another configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the checkpoint was made under other conditions: {}", sentence(.0))]
pub struct Mismatches(pub Vec<Mismatch>);

fn sentence(mismatches: &[Mismatch]) -> String {
    let each = |m: &Mismatch| format!("`{}` was {} and is {}", m.what, m.then, m.now);
    mismatches.iter().map(each).collect::<Vec<_>>().join(", ")
}

impl Hint for Mismatches {
    fn hint(&self) -> Option<String> {
        Some(
            "resume with the settings of the checkpoint, or allow the change with `--allow-different-config`; \
             the run then goes on but is no longer the same run"
                .into(),
        )
    }
}

impl Conditions {
    /// What differs now from when the checkpoint was saved (`self`), in a fixed order; empty if nothing does.
    pub fn differences(&self, now: &Self) -> Vec<Mismatch> {
        let mut found = Vec::new();
        let mut compare = |what: &str, then: String, now: String| {
            if then != now {
                found.push(Mismatch {
                    what: what.into(),
                    then: format!("`{then}`"),
                    now: format!("`{now}`"),
                });
            }
        };
        compare("seed", self.seed.to_string(), now.seed.to_string());
        compare("lanes", self.lanes.to_string(), now.lanes.to_string());
        compare("sampled clips", self.sampled_clips.to_string(), now.sampled_clips.to_string());
        compare("chunk clips", self.chunk_clips.to_string(), now.chunk_clips.to_string());
        compare("bucket layout", self.bucket_layout.to_string(), now.bucket_layout.to_string());
        compare("memory dtype", format!("{:?}", self.memory_dtype), format!("{:?}", now.memory_dtype));
        compare("threads", self.threads.to_string(), now.threads.to_string());
        compare("data set", self.dataset.to_string(), now.dataset.to_string());
        compare("source of frames", self.source.clone(), now.source.clone());
        compare("decoder", self.decoder.clone(), now.decoder.clone());
        compare("decoder version", self.decoder_version.clone(), now.decoder_version.clone());
        if self.settings.hash != now.settings.hash {
            let before = found.len();
            let (then, current) = (binding(&self.settings.resolved), binding(&now.settings.resolved));
            found.extend(differing(&then, &current));
            if found.len() == before {
                let hash = |settings: &Settings| format!("`{}`", settings.hash);
                found.push(Mismatch {
                    what: "hash of the settings".into(),
                    then: hash(&self.settings),
                    now: hash(&now.settings),
                });
            }
        }
        found
    }

    /// Refuses other conditions unless they are allowed; gives what differs, for the log.
    ///
    /// # Errors
    /// Something differs and `allow_changes` is not set.
    pub fn require_same(&self, now: &Self, allow_changes: bool) -> Result<Vec<Mismatch>, Mismatches> {
        let found = self.differences(now);
        if found.is_empty() || allow_changes { Ok(found) } else { Err(Mismatches(found)) }
    }
}

/// Settings that differ, sorted by key.
fn differing(then: &Map<String, Value>, now: &Map<String, Value>) -> Vec<Mismatch> {
    let mut keys: Vec<&String> = then.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    let text =
        |value: Option<&Value>| value.map_or_else(|| "not there".to_owned(), |value| format!("`{value}`"));
    keys.into_iter()
        .filter(|key| then.get(*key) != now.get(*key))
        .map(|key| Mismatch { what: key.clone(), then: text(then.get(key)), now: text(now.get(key)) })
        .collect()
}
