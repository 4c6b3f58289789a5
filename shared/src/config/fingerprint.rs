//! Which settings training depends on: a run resumed under others would be another run.

use super::resolve::rows_of;
use super::{Resolved, RunConfig};

/// Settings that change neither a weight nor a remembered row.
///
/// The data set's own fingerprint stands for where it lies; world size and threads are stored beside this one,
/// since a run may resume with others knowingly.
const INDIFFERENT: [&str; 29] = [
    "run.name",
    "run.folder",
    "data.annotations",
    "data.videos",
    "data.classes",
    "data.blocked",
    "data.disputed_videos",
    "data.frame_cache",
    "data.prefetch",
    "data.max_damaged",
    "synth",
    "synth.",
    "train.validate_every",
    "train.max_non_finite",
    "evaluation.",
    "cluster.workers",
    "cluster.min_workers",
    "cluster.spares",
    "cluster.recovery",
    "cluster.phase_deadline",
    "cluster.stop_grace",
    "memory.replicas",
    "cluster.threads",
    "cluster.listen",
    "cluster.lease",
    "cluster.coordinator_grace",
    "cluster.gather_timeout",
    "cluster.digest_every",
    "checkpoint.",
];

/// Whether a change of the setting of this dotted key makes a run another run.
pub fn binds_training(key: &str) -> bool {
    !named(&INDIFFERENT, key)
}

/// Whether a list names a key, or a section that it stands in.
fn named(list: &[&str], key: &str) -> bool {
    list.iter().any(|name| key == *name || (name.ends_with('.') && key.starts_with(name)))
}

/// The settings that training depends on and that differ, as sentences; `stored` is the checkpoint's configuration.
pub fn differences(stored: &RunConfig, now: &RunConfig) -> Vec<String> {
    let (stored, now) = (training_rows(stored), training_rows(now));
    let value_in = |rows: &[(String, String)], key: &str| {
        rows.iter()
            .find(|(other, _)| other == key)
            .map_or_else(|| "nothing".to_owned(), |(_, value)| value.clone())
    };
    let only_stored = stored.iter().filter(|(key, _)| !now.iter().any(|(other, _)| other == key));
    now.iter()
        .chain(only_stored)
        .map(|(key, _)| (key, value_in(&stored, key), value_in(&now, key)))
        .filter(|(_, before, after)| before != after)
        .map(|(key, before, after)| format!("`{key}`: {before} in the checkpoint, {after} now"))
        .collect()
}

/// Settings of the model that only training looks at: whatever they are, weights give the same detections.
const OF_TRAINING_ALONE: [&str; 8] = [
    "model.loss.",
    "model.backbone.drop_path",
    "model.backbone.frozen_stages",
    "model.backbone.linear_init",
    "model.backbone.weights",
    "model.backbone.weights_may_lack",
    "model.neck.tcm_drop_path",
    "model.neck.tdm_dropout",
];

/// The settings of the model under which weights are not those that were trained, as sentences.
pub fn misfits(trained: &RunConfig, given: &Resolved) -> Vec<String> {
    let same_size = trained.model.backbone.dimensions() == given.config.model.backbone.dimensions();
    let sizes = ["variant", "embed_dim", "depths", "num_heads"].map(|key| format!("model.backbone.{key}"));
    let shapes = |key: &str| {
        key.starts_with("model.")
            && !named(&OF_TRAINING_ALONE, key)
            && !(same_size && sizes.iter().any(|size| size == key))
    };
    let before = rows_of(trained);
    rows_of(&given.config)
        .into_iter()
        .filter(|(key, _)| shapes(key))
        .filter_map(|(key, now)| {
            let (_, before) = before.iter().find(|(other, before)| *other == key && *before != now)?;
            let source = given.source(&key).map(|source| format!(" ({source})")).unwrap_or_default();
            Some(format!("`{key}` is {now}{source}, but they were trained with {before}"))
        })
        .collect()
}

fn training_rows(config: &RunConfig) -> Vec<(String, String)> {
    rows_of(config).into_iter().filter(|(key, _)| binds_training(key)).collect()
}
