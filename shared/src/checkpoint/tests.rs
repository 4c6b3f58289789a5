//! A checkpoint is whole or does not exist, whatever fails and whoever writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use rand::{Rng as _, RngExt as _};

use super::*;
use crate::config::{MemoryDtype, RunConfig};
use crate::ids::{Generation, Incarnation, LaneId, Rank, RunId, Step, VideoIndex};
use crate::objects::faulty::{Fault, FaultyStore};
use crate::objects::{Objects, RetryPolicy};
use crate::protocol::SavedStage;
use crate::random::Key;

fn checkpoints(store: Arc<dyn ObjectStore>) -> CheckpointStore {
    let retry = RetryPolicy::without_pauses(2);
    CheckpointStore::new(Objects::new(store, "run").with_retry(retry))
}

fn conditions() -> Conditions {
    Conditions {
        seed: 7,
        lanes: 2,
        sampled_clips: 3,
        chunk_clips: 1,
        bucket_layout: ContentHash::of(b"buckets"),
        memory_dtype: MemoryDtype::F16,
        threads: 2,
        dataset: ContentHash::of(b"data set"),
        source: "videos".into(),
        decoder: "openh264".into(),
        decoder_version: "2.6".into(),
        settings: Settings::of(&RunConfig::default()),
    }
}

fn bytes_of(name: &str, number: u64) -> Bytes {
    let mut bytes = vec![0; 600];
    Key::root(number).child(name, 0).rng().fill_bytes(&mut bytes);
    Bytes::from(bytes)
}

/// Puts the parts of a checkpoint; lane 0's memory never changes, the rest changes with the step.
async fn parts_of(store: &CheckpointStore, step: u64) -> Result<Manifest, CheckpointError> {
    let lane = |lane: u32| LaneState { lane: LaneId(lane), rank: Rank(lane), cursor: step };
    let segment = |lane: u32, part| MemorySegment {
        lane: LaneId(lane),
        videos: vec![VideoIndex(lane), VideoIndex(lane + 2)],
        part,
    };
    Ok(Manifest {
        format: FORMAT,
        written_by: "0.1.0".into(),
        run: RunId("run".into()),
        incarnation: Incarnation(1),
        generation: Generation(4),
        stage: SavedStage::Train,
        step: Step(step),
        world_size: 2,
        lanes: vec![lane(0), lane(1)],
        conditions: conditions(),
        counters: Counters { skipped_samples: 1, ..Counters::default() },
        optimizer_state: OptimizerState { updates: step, ..OptimizerState::default() },
        model: store.put_part(bytes_of("model", step)).await?,
        optimizer: store.put_part(bytes_of("optimizer", step)).await?,
        memory: vec![
            segment(0, store.put_part(bytes_of("memory", 0)).await?),
            segment(1, store.put_part(bytes_of("memory", 100 + step)).await?),
        ],
        best: Some(Best { step: Step(step), average_map: 0.1 + 0.2 }),
        metrics: BTreeMap::from([("loss".to_owned(), 1.0 / 3.0)]),
    })
}

async fn save(
    store: &CheckpointStore,
    appender: &mut Appender,
    step: u64,
) -> Result<Sequence, CheckpointError> {
    let manifest = parts_of(store, step).await?;
    let reference = store.put_manifest(&manifest).await?;
    appender.append(&manifest, &reference, false).await
}

async fn newest_step(store: &CheckpointStore) -> Option<u64> {
    store.newest(Depth::Contents).await.unwrap().found.map(|(_, manifest)| manifest.step.0)
}

/// A store with checkpoints of these steps under incarnation 1.
async fn with_steps(steps: &[u64]) -> (Arc<dyn ObjectStore>, CheckpointStore, Appender) {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = checkpoints(Arc::clone(&inner));
    let mut appender = store.fence(Incarnation(1)).await.unwrap();
    for step in steps {
        save(&store, &mut appender, *step).await.unwrap();
    }
    (inner, store, appender)
}

async fn flip(inner: &Arc<dyn ObjectStore>, name: &str, bit: usize) {
    let path = Path::from(format!("run/{name}"));
    let mut bytes = inner.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    inner.put(&path, bytes.into()).await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_comes_back_as_it_was_saved() {
    let (_, store, _) = with_steps(&[10, 20]).await;
    let newest = store.newest(Depth::Contents).await.unwrap();
    let (committed, manifest) = newest.found.unwrap();
    assert!(newest.passed_over.is_empty());
    assert_eq!(committed.manifest.object, "checkpoints/20-g4/manifest.json");
    assert_eq!(manifest, parts_of(&store, 20).await.unwrap());
    assert_eq!(store.get_part(&manifest.model).await.unwrap(), bytes_of("model", 20));
    assert_eq!(manifest.segments_of(&[LaneId(1)]).count(), 1);
    let listed = store.list().await.unwrap();
    assert_eq!(listed.iter().map(|committed| committed.step.0).collect::<Vec<_>>(), [10, 20]);
}

#[tokio::test]
async fn what_is_not_in_the_chain_does_not_exist() {
    let (_, store, _) = with_steps(&[10]).await;
    let manifest = parts_of(&store, 20).await.unwrap();
    store.put_manifest(&manifest).await.unwrap();
    assert_eq!(newest_step(&store).await, Some(10));
    assert_eq!(newest_step(&checkpoints(Arc::new(InMemory::new()))).await, None);
}

#[tokio::test]
async fn unchanged_parts_are_not_uploaded_again() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let counting = Arc::new(FaultyStore::new(inner));
    let store = checkpoints(Arc::clone(&counting) as Arc<dyn ObjectStore>);
    parts_of(&store, 1).await.unwrap();
    assert_eq!(counting.writes(), 4);
    parts_of(&store, 2).await.unwrap();
    assert_eq!(counting.writes(), 7, "the memory of lane 0 did not change");
}

#[tokio::test]
async fn two_hundred_flipped_bits_are_all_noticed() {
    let (inner, store, _) = with_steps(&[10, 20]).await;
    let mut rng = Key::root(200).rng();
    for _ in 0..200 {
        let (committed, manifest) = store.newest(Depth::Contents).await.unwrap().found.unwrap();
        assert_eq!(committed.step.0, 20);
        // What step 20 alone has, so that step 10 stays whole.
        let mut objects: Vec<(String, u64)> = [manifest.model, manifest.optimizer, manifest.memory[1].part]
            .map(|part| (part.object(), part.bytes))
            .to_vec();
        objects.push((committed.manifest.object.clone(), committed.manifest.content.bytes));
        let commit = committed.sequence.object();
        let length = inner.head(&Path::from(format!("run/{commit}"))).await.unwrap().size;
        objects.push((commit, length));
        let (name, length) = &objects[rng.random_range(0..objects.len())];
        let bit = rng.random_range(0..length * 8) as usize;
        flip(&inner, name, bit).await;
        let newest = store.newest(Depth::Contents).await.unwrap();
        assert_eq!(newest.found.unwrap().1.step, Step(10), "bit {bit} of {name}");
        let sentence = newest.passed_over.first().unwrap().to_string();
        assert!(sentence.contains(name.as_str()), "{sentence}");
        flip(&inner, name, bit).await;
    }
}

#[tokio::test]
async fn short_and_missing_parts_are_refused_by_name() {
    let (inner, store, _) = with_steps(&[10, 20]).await;
    let (_, manifest) = store.newest(Depth::Sizes).await.unwrap().found.unwrap();
    let object = manifest.optimizer.object();
    let path = Path::from(format!("run/{object}"));
    inner.put(&path, bytes_of("optimizer", 20).slice(..599).into()).await.unwrap();
    let error = store.get_part(&manifest.optimizer).await.unwrap_err().to_string();
    assert_eq!(error, format!("`run/{object}` has 599 bytes instead of 600"));
    let newest = store.newest(Depth::Sizes).await.unwrap();
    assert_eq!((newest.found.unwrap().1.step, newest.passed_over.len()), (Step(10), 1));

    inner.delete(&path).await.unwrap();
    let error = store.get_part(&manifest.optimizer).await.unwrap_err().to_string();
    assert_eq!(error, format!("`run/{object}` is missing"));
    assert_eq!(newest_step(&store).await, Some(10));
    let error = store.put_manifest(&manifest).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Incomplete { .. }), "{error}");

    let mended = store.put_part(bytes_of("optimizer", 20)).await.unwrap();
    assert_eq!(mended, manifest.optimizer);
    assert_eq!(newest_step(&store).await, Some(20));
}

#[tokio::test]
async fn a_damaged_part_is_set_aside_and_written_anew() {
    let (inner, store, _) = with_steps(&[10]).await;
    let part = PartRef::of(&bytes_of("memory", 0));
    assert!(!store.set_aside(&part).await.unwrap(), "a part that reads well stays");
    flip(&inner, &part.object(), 77).await;
    store.put_part(bytes_of("memory", 0)).await.unwrap();
    assert!(store.get_part(&part).await.is_err(), "its name and size say that it is there");
    assert!(store.set_aside(&part).await.unwrap());
    store.put_part(bytes_of("memory", 0)).await.unwrap();
    assert_eq!(newest_step(&store).await, Some(10));
}

/// Kills a save at each of its writes in turn, in each way: the chain's newest stays loadable, and the next save works.
#[tokio::test]
async fn a_save_that_dies_at_any_write_leaves_the_last_checkpoint() {
    for fault in [Fault::Fail, Fault::Torn, Fault::Full, Fault::Unacknowledged] {
        for write in 0..=4 {
            let (inner, _, _) = with_steps(&[10]).await;
            // The fence is write 0 of this incarnation; step 20 shares one part with step 10, so 5 writes follow.
            let faulty = Arc::new(FaultyStore::new(Arc::clone(&inner)).from(1 + write.., fault));
            let store = checkpoints(Arc::clone(&faulty) as Arc<dyn ObjectStore>);
            let mut appender = store.fence(Incarnation(2)).await.unwrap();
            let outcome = save(&store, &mut appender, 20).await;
            // Manifest and commit are created if absent: one that is found with our bytes in it is ours.
            let saved = fault == Fault::Unacknowledged && write >= 3;
            assert_eq!(outcome.is_ok(), saved, "{fault:?} at {write}");
            if fault == Fault::Full {
                let sentence = outcome.unwrap_err().to_string();
                assert!(sentence.starts_with("no space is left to write `run/"), "{sentence}");
            }
            let after = checkpoints(Arc::clone(&inner));
            let survived = newest_step(&after).await;
            assert_eq!(survived, Some(if saved { 20 } else { 10 }), "{fault:?} at {write}");

            let mut appender = after.fence(Incarnation(3)).await.unwrap();
            save(&after, &mut appender, 30).await.unwrap();
            assert_eq!(newest_step(&after).await, Some(30), "{fault:?} at {write}");
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_appended_once() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    // Fence, four parts, manifest, then the commit and its retry go unanswered.
    let faulty = FaultyStore::new(Arc::clone(&inner)).at(6, Fault::Unacknowledged).at(7, Fault::Fail);
    let store = checkpoints(Arc::new(faulty));
    let mut appender = store.fence(Incarnation(1)).await.unwrap();
    assert!(save(&store, &mut appender, 10).await.is_err());
    assert_eq!(save(&store, &mut appender, 10).await.unwrap(), Sequence(1));
    save(&store, &mut appender, 20).await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_zombie_collides_with_the_fence_and_stops() {
    let (_, store, mut zombie) = with_steps(&[10]).await;
    let mut new = store.fence(Incarnation(2)).await.unwrap();
    let error = save(&store, &mut zombie, 20).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "incarnation i1 of the run has been replaced by i2: what it saves no longer counts"
    );
    assert!(matches!(save(&store, &mut zombie, 30).await, Err(CheckpointError::Fenced { .. })));
    assert!(zombie.sweep(Retention { newest: 1 }, &BTreeSet::new(), SystemTime::now()).await.is_err());
    save(&store, &mut new, 15).await.unwrap();
    assert_eq!(newest_step(&store).await, Some(15));
    for stale in [1, 2] {
        let error = store.fence(Incarnation(stale)).await.unwrap_err();
        assert!(matches!(error, CheckpointError::Fenced { .. }));
    }
}

/// Even a zombie that looks the tail up again, against the rule, writes nothing that counts.
#[tokio::test]
async fn a_commit_of_an_older_incarnation_after_a_fence_does_not_count() {
    let (_, store, _) = with_steps(&[10]).await;
    let manifest = parts_of(&store, 20).await.unwrap();
    let reference = store.put_manifest(&manifest).await.unwrap();
    store.fence(Incarnation(5)).await.unwrap();
    let tail = store.chain().await.unwrap();
    let zombie_at = Sequence(tail.commits.last().unwrap().sequence.0 + 1);
    let commit = Commit {
        format: FORMAT,
        sequence: zombie_at,
        predecessor: None,
        incarnation: Incarnation(1),
        entry: Entry::Checkpoint {
            step: manifest.step,
            generation: manifest.generation,
            manifest: reference.object,
            content: reference.content,
            best: true,
        },
    };
    store.objects.create(&zombie_at.object(), commit.encode().into()).await.unwrap();
    let newest = store.newest(Depth::Contents).await.unwrap();
    assert_eq!(newest.found.unwrap().1.step, Step(10));
    assert!(newest.passed_over.iter().any(|damage| damage.to_string().contains("after i5 had taken over")));
    let mut next = store.fence(Incarnation(6)).await.unwrap();
    save(&store, &mut next, 30).await.unwrap();
    assert_eq!(newest_step(&store).await, Some(30));
}

#[tokio::test]
async fn incarnations_are_won_once() {
    let store = checkpoints(Arc::new(InMemory::new()));
    let mut won = BTreeSet::new();
    for owner in 0..5 {
        won.insert(store.claim_incarnation(&format!("owner {owner}")).await.unwrap());
    }
    assert_eq!(won, (1..=5).map(Incarnation).collect());
}

#[test]
fn the_newest_and_the_best_are_kept() {
    let candidate = |sequence, best, whole| Candidate { sequence: Sequence(sequence), best, whole };
    let all = [
        candidate(1, true, true),
        candidate(3, true, true),
        candidate(4, false, true),
        candidate(6, false, true),
        candidate(7, false, false),
    ];
    let kept = |newest| keep(&all, Retention { newest }).into_iter().map(|s| s.0).collect::<Vec<_>>();
    assert_eq!(kept(2), [3, 4, 6]);
    assert_eq!(kept(0), [3, 6], "the newest is always kept");
    assert_eq!(kept(9), [1, 3, 4, 6]);
    assert!(keep(&[], Retention { newest: 2 }).is_empty());
}

#[tokio::test]
async fn sweeping_removes_what_nothing_names() {
    let (_, store, mut appender) = with_steps(&[10, 20]).await;
    let best = parts_of(&store, 30).await.unwrap();
    let reference = store.put_manifest(&best).await.unwrap();
    appender.append(&best, &reference, true).await.unwrap();
    save(&store, &mut appender, 40).await.unwrap();
    save(&store, &mut appender, 50).await.unwrap();
    let in_flight = store.put_part(bytes_of("model", 60)).await.unwrap();
    let orphan = store.put_part(bytes_of("model", 70)).await.unwrap();

    let now = SystemTime::now();
    let in_flight_now = BTreeSet::from([in_flight.hash]);
    let swept = appender.sweep(Retention { newest: 1 }, &in_flight_now, now).await.unwrap();
    // Steps 10, 20 and 40 have three parts each that no other has.
    assert_eq!(swept, Swept { manifests: 3, parts: 10, bytes: 6000, spared_for_readers: false });
    let steps: Vec<u64> = store.list().await.unwrap().iter().map(|committed| committed.step.0).collect();
    assert_eq!(steps, [30, 50]);
    for committed in store.list().await.unwrap() {
        store.verify(&committed, Depth::Contents).await.unwrap();
    }
    store.get_part(&in_flight).await.unwrap();
    assert!(store.get_part(&orphan).await.is_err());
    let again = appender.sweep(Retention { newest: 1 }, &in_flight_now, now).await.unwrap();
    assert_eq!(again, Swept::default());
}

#[tokio::test]
async fn what_is_being_read_is_not_swept() {
    let (_, store, mut appender) = with_steps(&[10]).await;
    let now = SystemTime::now();
    let none = BTreeSet::new();
    let reading = store.begin_reading("reader", now).await.unwrap();
    let (_, manifest) = store.newest(Depth::Sizes).await.unwrap().found.unwrap();
    save(&store, &mut appender, 20).await.unwrap();
    let swept = appender.sweep(Retention { newest: 1 }, &none, now).await.unwrap();
    assert_eq!(swept, Swept { manifests: 1, spared_for_readers: true, ..Swept::default() });
    assert_eq!(store.get_part(&manifest.model).await.unwrap(), bytes_of("model", 10));
    assert_eq!(newest_step(&store).await, Some(20));

    reading.end().await.unwrap();
    let swept = appender.sweep(Retention { newest: 1 }, &none, now).await.unwrap();
    assert_eq!(swept, Swept { parts: 3, bytes: 1800, ..Swept::default() });
    assert!(store.get_part(&manifest.model).await.is_err());
}

#[tokio::test]
async fn a_reader_that_died_stops_no_sweep_for_ever_and_a_slow_one_holds_on() {
    let (_, store, mut appender) = with_steps(&[10]).await;
    let begun = SystemTime::now();
    let at = |minutes: u64| begun + Duration::from_mins(minutes);
    let none = BTreeSet::new();
    let mut slow = store.begin_reading("slow", begun).await.unwrap();
    drop(store.begin_reading("dead", begun).await.unwrap());
    let (_, manifest) = store.newest(Depth::Sizes).await.unwrap().found.unwrap();
    save(&store, &mut appender, 20).await.unwrap();
    slow.during(|| at(8), store.get_part(&manifest.model)).await.unwrap();
    assert!(appender.sweep(Retention { newest: 1 }, &none, at(12)).await.unwrap().spared_for_readers);
    let marks = store.objects.list("readers").await.unwrap();
    assert_eq!(marks.len(), 1, "the mark of the dead one has run out: {marks:?}");
    let swept = appender.sweep(Retention { newest: 1 }, &none, at(20)).await.unwrap();
    assert_eq!((swept.parts, swept.spared_for_readers), (3, false));
    assert!(store.objects.list("readers").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_zombie_that_has_nothing_to_append_does_not_sweep_either() {
    let (_, store, mut zombie) = with_steps(&[10, 20]).await;
    let in_flight = store.put_part(bytes_of("model", 30)).await.unwrap();
    store.fence(Incarnation(2)).await.unwrap();
    let error = zombie.sweep(Retention { newest: 1 }, &BTreeSet::new(), SystemTime::now()).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Fenced { .. }), "{error}");
    store.get_part(&in_flight).await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn all_that_is_damaged_is_found_and_shared_parts_are_read_once() {
    let (inner, store, _) = with_steps(&[10, 20]).await;
    let (_, manifest) = store.newest(Depth::Sizes).await.unwrap().found.unwrap();
    for part in [manifest.model, manifest.memory[0].part] {
        flip(&inner, &part.object(), 5).await;
    }
    let mut examiner = Examiner::new(store.clone());
    let mut found = Vec::new();
    for committed in store.list().await.unwrap() {
        found.push(examiner.examine(&committed).await.unwrap().unwrap());
    }
    // Both share the memory of lane 0.
    assert_eq!(found.iter().map(|examined| examined.damage.len()).collect::<Vec<_>>(), [1, 2]);
    assert!(found[1].damage.contains(&found[0].damage[0]));

    let swept = store.list().await.unwrap().remove(0);
    inner.delete(&Path::from(format!("run/{}", swept.manifest.object))).await.unwrap();
    assert!(examiner.examine(&swept).await.unwrap().is_none(), "what has been swept is not damaged");
}

#[tokio::test]
async fn a_folder_of_a_swept_checkpoint_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(Objects::open(&folder.path().display().to_string()).unwrap());
    let mut appender = store.fence(Incarnation(1)).await.unwrap();
    for step in [10, 20] {
        save(&store, &mut appender, step).await.unwrap();
    }
    appender.sweep(Retention { newest: 1 }, &BTreeSet::new(), SystemTime::now()).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(folder.path().join("checkpoints")).unwrap().flatten().collect();
    assert_eq!(left.iter().map(std::fs::DirEntry::file_name).collect::<Vec<_>>(), ["20-g4"]);
    assert_eq!(newest_step(&store).await, Some(20));
}

#[tokio::test]
async fn another_manifest_of_the_same_name_gets_the_next_one() {
    let (_, store, mut appender) = with_steps(&[]).await;
    let mut manifest = parts_of(&store, 10).await.unwrap();
    store.put_manifest(&manifest).await.unwrap();
    manifest.metrics.insert("loss".into(), 2.0);
    let reference = store.put_manifest(&manifest).await.unwrap();
    assert_eq!(reference.object, "checkpoints/10-g4-2/manifest.json");
    appender.append(&manifest, &reference, false).await.unwrap();
    assert_eq!(store.newest(Depth::Contents).await.unwrap().found.unwrap().1, manifest);
}

#[tokio::test]
async fn manifests_of_other_formats_and_lost_numbers_are_refused() {
    let (_, store, _) = with_steps(&[]).await;
    let mut manifest = parts_of(&store, 10).await.unwrap();
    let text = String::from_utf8(manifest.encode().unwrap()).unwrap();
    assert_eq!(Manifest::decode(text.as_bytes()).unwrap(), manifest);
    let newer = text.replacen("\"format\": 1", "\"format\": 2", 1);
    let error = Manifest::decode(newer.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "the manifest has format 2, and this build reads format 1");
    let unknown = text.replacen("\"format\": 1", "\"format\": 1, \"extra\": 1", 1);
    assert!(Manifest::decode(unknown.as_bytes()).is_err());
    manifest.metrics.insert("loss".into(), f64::NAN);
    assert!(matches!(manifest.encode(), Err(ManifestError::NotFinite { .. })));
    manifest.stage = SavedStage::Pretrain;
    assert_eq!(manifest.folder(), "checkpoints/pretrain-10-g4");
}

#[test]
fn other_conditions_are_named_and_need_consent() {
    let then = conditions();
    assert!(then.differences(&then).is_empty());
    let mut config = RunConfig::default();
    config.run.folder = "elsewhere".into();
    config.checkpoint.every += 1;
    config.cluster = RunConfig::default().cluster;
    let moved = Conditions { settings: Settings::of(&config), ..then.clone() };
    assert!(then.differences(&moved).is_empty(), "where a run lies changes nothing");

    config.optim.learning_rate = 0.5;
    let now = Conditions { seed: 8, threads: 4, settings: Settings::of(&config), ..then.clone() };
    let refused = then.require_same(&now, false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the checkpoint was made under other conditions: `seed` was `7` and is `8`, `threads` was `2` and is `4`, \
         `optim.learning_rate` was `0.01` and is `0.5`"
    );
    assert_eq!(then.require_same(&now, true).unwrap(), refused.0);
}
