//! Checkpoints whose content follows from their step, so that what is loaded can be compared with what was saved.

#![allow(dead_code, reason = "shared by the suite and by its helper program, which use different halves")]

use std::collections::BTreeMap;

use bytes::Bytes;
use longtake_shared::checkpoint::{
    Appender, CheckpointError, CheckpointStore, Conditions, ContentHash, Counters, Depth, FORMAT, LaneState,
    Manifest, MemorySegment, OptimizerState, Sequence, Settings,
};
use longtake_shared::config::{MemoryDtype, RunConfig};
use longtake_shared::ids::{Generation, Incarnation, LaneId, Rank, RunId, Step, VideoIndex};
use longtake_shared::protocol::SavedStage;
use longtake_shared::random::Key;
use rand::Rng as _;

/// Set to anything: the counts of the proof instead of those that CI has time for.
const NIGHTLY: &str = "LONGTAKE_NIGHTLY";

/// How often something is tried.
pub(crate) fn count(in_ci: usize, nightly: usize) -> usize {
    if std::env::var_os(NIGHTLY).is_some() { nightly } else { in_ci }
}

/// The bytes of a part of the checkpoint of a step.
pub(crate) fn bytes_of(name: &str, number: u64, size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    Key::root(number).child(name, 0).rng().fill_bytes(&mut bytes);
    Bytes::from(bytes)
}

/// Sizes of the parts: the model is larger than what a page or a socket takes at once.
const MODEL: usize = 96 << 10;
const REST: usize = 3000;

/// Puts the parts of a checkpoint; lane 0's memory never changes, the rest changes with the step.
pub(crate) async fn put_parts(
    store: &CheckpointStore,
    incarnation: Incarnation,
    step: u64,
) -> Result<Manifest, CheckpointError> {
    let lane = |lane: u32| LaneState { lane: LaneId(lane), rank: Rank(lane), cursor: step };
    let segment =
        |lane: u32, part| MemorySegment { lane: LaneId(lane), videos: vec![VideoIndex(lane)], part };
    let hash = ContentHash::of(b"");
    Ok(Manifest {
        format: FORMAT,
        written_by: "0.1.0".into(),
        run: RunId("run".into()),
        incarnation,
        generation: Generation(incarnation.0),
        stage: SavedStage::Train,
        step: Step(step),
        world_size: 2,
        lanes: vec![lane(0), lane(1)],
        conditions: Conditions {
            seed: 1,
            lanes: 2,
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
        optimizer_state: OptimizerState { updates: step, ..OptimizerState::default() },
        model: store.put_part(bytes_of("model", step, MODEL)).await?,
        optimizer: store.put_part(bytes_of("optimizer", step, REST)).await?,
        memory: vec![
            segment(0, store.put_part(bytes_of("memory", 0, REST)).await?),
            segment(1, store.put_part(bytes_of("memory", 100 + step, REST)).await?),
        ],
        best: None,
        metrics: BTreeMap::new(),
    })
}

/// Saves a checkpoint of a step.
pub(crate) async fn save(
    store: &CheckpointStore,
    appender: &mut Appender,
    incarnation: Incarnation,
    step: u64,
) -> Result<Sequence, CheckpointError> {
    let manifest = put_parts(store, incarnation, step).await?;
    let reference = store.put_manifest(&manifest).await?;
    appender.append(&manifest, &reference, false).await
}

/// Takes over the run as a coordinator does when it starts.
pub(crate) async fn take_over(
    store: &CheckpointStore,
    owner: &str,
) -> Result<(Incarnation, Appender), CheckpointError> {
    let incarnation = store.claim_incarnation(owner).await?;
    Ok((incarnation, store.fence(incarnation).await?))
}

/// The step of the newest whole checkpoint, whose content is what was saved, and how much was passed over.
///
/// # Panics
/// It is not what was saved.
pub(crate) async fn load_newest(store: &CheckpointStore) -> Result<(Option<u64>, usize), CheckpointError> {
    let newest = store.newest(Depth::Contents).await?;
    let passed_over = newest.passed_over.len();
    let Some((committed, manifest)) = newest.found else { return Ok((None, passed_over)) };
    let step = manifest.step.0;
    assert_eq!((committed.step.0, manifest.optimizer_state.updates), (step, step));
    assert_eq!(store.get_part(&manifest.model).await?, bytes_of("model", step, MODEL));
    assert_eq!(store.get_part(&manifest.optimizer).await?, bytes_of("optimizer", step, REST));
    assert_eq!(store.get_part(&manifest.memory[0].part).await?, bytes_of("memory", 0, REST));
    assert_eq!(store.get_part(&manifest.memory[1].part).await?, bytes_of("memory", 100 + step, REST));
    Ok((Some(step), passed_over))
}
