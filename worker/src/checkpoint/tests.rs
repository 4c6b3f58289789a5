//! What is saved comes back bit for bit, and a save that fails says so and harms nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use half::{bf16, f16};
use longtake_shared::checkpoint::{CheckpointError, CheckpointStore};
use longtake_shared::checkpoint::{
    Conditions, ContentHash, Counters, Depth, FORMAT, Manifest, OptimizerState, Retention, Settings,
};
use longtake_shared::config::{MemoryDtype, RunConfig};
use longtake_shared::hint::{Failure, Hint as _};
use longtake_shared::ids::{Generation, Incarnation, LaneId, RunId, Step, VideoIndex};
use longtake_shared::objects::faulty::{Fault, FaultyStore};
use longtake_shared::objects::{Objects, RetryPolicy};
use longtake_shared::protocol::SavedStage;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tempfile::TempDir;

use super::*;
use crate::model::memory::MemoryStore;
use crate::tensors::{NamedTensor, TensorData, TensorFile};

fn tensor(name: &str, shape: &[usize], data: TensorData) -> NamedTensor {
    NamedTensor { name: name.into(), shape: shape.to_vec(), data }
}

fn file() -> TensorFile {
    TensorFile {
        tensors: vec![
            tensor("a.half", &[3], TensorData::F16(vec![f16::from_f32(0.1), f16::NAN, f16::MAX])),
            tensor("b.weight", &[2, 2], TensorData::F32(vec![1.0, -0.0, f32::MIN_POSITIVE, f32::INFINITY])),
            tensor("c.brain", &[1, 1], TensorData::Bf16(vec![bf16::from_f32(3.0)])),
            tensor("d.empty", &[0, 7], TensorData::F32(Vec::new())),
            tensor("e.steps", &[], TensorData::I64(vec![-1])),
            tensor("f.counts", &[2], TensorData::U64(vec![u64::MAX, 0])),
        ],
        metadata: (0..9).map(|number| (format!("note {number}"), format!("\"{number}\"\n"))).collect(),
    }
}

#[test]
fn notes_are_read_from_the_beginning_of_a_file_alone() {
    let notes = BTreeMap::from([("config".to_owned(), "{}".to_owned())]);
    let bytes = TensorFile { metadata: notes.clone(), ..file() }.encode().unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(TensorFile::notes(&bytes[..header]), Some(notes));
    assert_eq!(TensorFile::notes(&bytes[..header - 1]), None);
    assert_eq!(TensorFile::notes(b"ftypisom and more"), None);
}

#[test]
fn tensors_come_back_with_their_bits() {
    let bytes = file().encode().unwrap();
    let back = TensorFile::decode(&bytes).unwrap();
    assert_eq!(back.encode().unwrap(), bytes, "NaN is not equal to itself, its bytes are");
    assert_eq!(back.metadata, file().metadata);
    assert_eq!(back.tensors[1], file().tensors[1]);
    assert_eq!(back.tensors[5], file().tensors[5]);
    let shuffled = TensorFile { tensors: file().tensors.into_iter().rev().collect(), ..file() };
    assert_eq!(shuffled.encode().unwrap(), bytes, "the order they come in does not matter");
    assert_eq!(shuffled.into_payload().unwrap().iter().flatten().copied().collect::<Vec<_>>(), bytes);
}

#[test]
fn tensors_that_make_no_file_are_named() {
    let wrong =
        TensorFile { tensors: vec![tensor("x", &[3], TensorData::I64(vec![1]))], ..TensorFile::default() };
    assert_eq!(wrong.encode().unwrap_err().to_string(), "tensor `x` has 1 values and the shape [3]");
    let one = tensor("x", &[1], TensorData::I64(vec![1]));
    let twice = TensorFile { tensors: vec![one.clone(), one], ..TensorFile::default() };
    assert_eq!(twice.encode().unwrap_err().to_string(), "there are two tensors `x`");
    let bytes = file().encode().unwrap();
    for cut in [0, 5, 8, 60, bytes.len() - 1] {
        assert!(TensorFile::decode(&bytes[..cut]).is_err(), "{cut} bytes");
    }
}

const LANES: [LaneId; 2] = [LaneId(0), LaneId(1)];

fn memory() -> (TempDir, MemoryStore) {
    let folder = tempfile::tempdir().unwrap();
    let (mut memory, _) = MemoryStore::open(folder.path(), 4, MemoryDtype::F16).unwrap();
    memory.add_lane(LANES[0], &[(VideoIndex(0), 8), (VideoIndex(2), 5)]).unwrap();
    memory.add_lane(LANES[1], &[(VideoIndex(1), 6)]).unwrap();
    (folder, memory)
}

/// A file of one tensor.
fn weights(number: u64, values: usize) -> TensorFile {
    let data = TensorData::U64(vec![number; values]);
    TensorFile { tensors: vec![tensor("weights", &[values], data)], ..TensorFile::default() }
}

fn request(memory: &MemoryStore, step: u8) -> SaveRequest {
    SaveRequest {
        model: Some(weights(u64::from(step), 100)),
        optimizer: Some(weights(u64::from(step) + 1000, 50)),
        memory: Some(memory.snapshot(&LANES).unwrap()),
        videos_a_part: 1,
    }
}

fn checkpoints(store: Arc<dyn ObjectStore>) -> CheckpointStore {
    let retry = RetryPolicy::without_pauses(2);
    CheckpointStore::new(Objects::new(store, "run").with_retry(retry))
}

fn manifest_of(step: u64, saved: SavedParts) -> Manifest {
    let conditions = Conditions {
        seed: 1,
        lanes: 2,
        sampled_clips: 1,
        chunk_clips: 1,
        bucket_layout: ContentHash::of(b""),
        memory_dtype: MemoryDtype::F16,
        threads: 1,
        dataset: ContentHash::of(b""),
        source: "videos".into(),
        decoder: "embedded".into(),
        decoder_version: "1".into(),
        settings: Settings::of(&RunConfig::default()),
    };
    Manifest {
        format: FORMAT,
        written_by: "0.1.0".into(),
        run: RunId("run".into()),
        incarnation: Incarnation(1),
        generation: Generation(1),
        stage: SavedStage::Train,
        step: Step(step),
        world_size: 1,
        lanes: Vec::new(),
        conditions,
        counters: Counters::default(),
        optimizer_state: OptimizerState::default(),
        model: saved.model.unwrap(),
        optimizer: saved.optimizer.unwrap(),
        memory: saved.memory,
        best: None,
        metrics: BTreeMap::new(),
    }
}

/// Saves and commits a checkpoint of the memory as it is.
fn save(
    store: &CheckpointStore,
    memory: &MemoryStore,
    step: u8,
    incarnation: u64,
) -> Result<Manifest, Failure> {
    let mut saver = Saver::new(store.clone())?;
    saver.start(request(memory, step))?;
    let manifest = manifest_of(u64::from(step), saver.wait().unwrap()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let reference = store.put_manifest(&manifest).await?;
        store.fence(Incarnation(incarnation)).await?.append(&manifest, &reference, false).await?;
        Ok(manifest)
    })
}

fn newest(store: &CheckpointStore) -> Option<Step> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(store.newest(Depth::Contents)).unwrap().found.map(|(_, manifest)| manifest.step)
}

#[test]
fn a_save_in_the_background_is_loaded_as_it_was() {
    let counting = Arc::new(FaultyStore::new(Arc::new(InMemory::new())));
    let store = checkpoints(Arc::clone(&counting) as Arc<dyn ObjectStore>);
    let (_folder, mut memory) = memory();
    memory.write(LANES[0], VideoIndex(2), Step(3), 1, &[0.5; 12]).unwrap();
    memory.write(LANES[1], VideoIndex(1), Step(4), 0, &[-1.5; 8]).unwrap();

    let mut saver = Saver::new(store.clone()).unwrap();
    saver.start(request(&memory, 9)).unwrap();
    assert!(matches!(saver.start(request(&memory, 9)), Err(SaveError::Busy)));
    memory.write(LANES[0], VideoIndex(2), Step(5), 0, &[7.0; 20]).unwrap();
    let saved = loop {
        if let Some(result) = saver.poll() {
            break result.unwrap();
        }
        std::thread::yield_now();
    };
    assert!(!saver.is_busy() && saver.poll().is_none() && saver.wait().is_none());
    assert_eq!(saved.memory.len(), 3);
    assert_eq!(counting.writes(), 5);

    saver.start(request(&memory, 9)).unwrap();
    let again = saver.wait().unwrap().unwrap();
    assert_eq!(counting.writes(), 6, "only video 2 has changed");
    assert_eq!((again.model, again.memory[0].part), (saved.model, saved.memory[0].part));

    let manifest = manifest_of(9, saved);
    let loader = Loader::new(store).unwrap();
    let tensors = loader.tensors(&manifest).unwrap();
    assert_eq!(TensorFile::decode(&tensors.model).unwrap(), weights(9, 100));
    assert_eq!(TensorFile::decode(&tensors.optimizer).unwrap(), weights(1009, 50));
    let (_other_folder, mut other) = self::memory();
    loader.memory(&manifest, &LANES, &mut other).unwrap();
    let window = other.read(LANES[0], VideoIndex(2), 0, 5).unwrap();
    assert_eq!(window.values, [vec![0.0; 4], vec![0.5; 12], vec![0.0; 4]].concat());
    assert_eq!(other.ages(Step(4)).remembered, 5);
    let error = loader.memory(&manifest, &[LaneId(7)], &mut other).unwrap_err();
    assert_eq!(error.to_string(), "the checkpoint has no memory of lane 7");
}

#[test]
fn a_sweep_takes_nothing_of_what_a_worker_loads_until_it_has_loaded() {
    let store = checkpoints(Arc::new(InMemory::new()));
    let (_folder, mut memory) = memory();
    let loaded = save(&store, &memory, 1, 1).unwrap();
    let loader = Loader::new(store.clone()).unwrap();
    loader.tensors(&loaded).unwrap();
    // Meanwhile a newer checkpoint shares nothing with it, and only that one is kept.
    for (lane, video, rows) in [(0, 0, 8), (0, 2, 5), (1, 1, 6)] {
        memory.write(LaneId(lane), VideoIndex(video), Step(2), 0, &vec![0.25; 4 * rows]).unwrap();
    }
    save(&store, &memory, 2, 2).unwrap();
    let sweep = |incarnation| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sweep = async {
            let mut appender = store.fence(Incarnation(incarnation)).await?;
            appender.sweep(Retention { newest: 1 }, &BTreeSet::new(), SystemTime::now()).await
        };
        runtime.block_on(sweep).unwrap()
    };
    let spared = sweep(3);
    assert_eq!((spared.manifests, spared.parts, spared.spared_for_readers), (1, 0, true));
    let (_other_folder, mut other) = self::memory();
    loader.memory(&loaded, &LANES, &mut other).unwrap();

    loader.end();
    let swept = sweep(4);
    assert_eq!((swept.manifests, swept.parts, swept.spared_for_readers), (0, 5, false));
    // Whoever comes late finds nothing, and is told so.
    let error = Loader::new(store.clone()).unwrap().tensors(&loaded).unwrap_err();
    assert!(matches!(error, LoadError::Store(CheckpointError::Damaged(_))), "{error}");
}

#[test]
fn a_full_disk_while_saving_is_one_sentence_and_leaves_the_last_checkpoint() {
    // One segment has changed: its part, weights, optimizer, manifest, fence, commit.
    for write in 0..6 {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (_folder, mut memory) = memory();
        save(&checkpoints(Arc::clone(&inner)), &memory, 1, 1).unwrap();
        memory.write(LANES[0], VideoIndex(0), Step(1), 0, &[0.25; 32]).unwrap();
        let full = FaultyStore::new(Arc::clone(&inner)).from(write.., Fault::Full);
        let failure = save(&checkpoints(Arc::new(full)), &memory, 2, 2).unwrap_err();
        assert!(failure.message.contains("no space is left to write `run/"), "{}", failure.message);
        assert!(failure.hint.unwrap().contains("nothing was half-written"));
        assert_eq!(newest(&checkpoints(Arc::clone(&inner))), Some(Step(1)));
        save(&checkpoints(Arc::clone(&inner)), &memory, 2, 3).unwrap();
        assert_eq!(newest(&checkpoints(inner)), Some(Step(2)));
    }
}

/// A file system of 1 MiB, gone with this value.
struct TinyDisk(TempDir);

impl TinyDisk {
    /// Nothing where the system does not let this process mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_disk_that_is_really_full_leaves_the_last_checkpoint() {
    let Some(disk) = TinyDisk::mount() else {
        eprintln!("SKIPPED: this process may not mount a tmpfs, so no real disk was filled");
        return;
    };
    let objects = Objects::open(&disk.0.path().join("run").display().to_string()).unwrap();
    let store = CheckpointStore::new(objects);
    let (_folder, memory) = memory();
    let first = save(&store, &memory, 1, 1).unwrap();

    let mut saver = Saver::new(store.clone()).unwrap();
    let large = weights(3, 1 << 18);
    let size = large.encode().unwrap().len().to_string();
    saver.start(SaveRequest { model: Some(large), ..request(&memory, 2) }).unwrap();
    let error = saver.wait().unwrap().unwrap_err();
    assert!(matches!(error, SaveError::Store(CheckpointError::Object(_))), "{error:?}");
    assert!(error.hint().is_some());
    let sentence = Failure::from(error).message;
    assert!(sentence.contains("no space is left to write `parts/") && sentence.contains(&size), "{sentence}");
    assert_eq!(newest(&store), Some(first.step));
    let mut left = 0;
    for entry in std::fs::read_dir(disk.0.path().join("run/parts")).unwrap() {
        let path = entry.unwrap().path();
        let hash = ContentHash::of(&std::fs::read(&path).unwrap()).to_string();
        assert_eq!(path.file_name().unwrap().to_str(), Some(hash.as_str()), "nothing half-written");
        left += 1;
    }
    // The optimizer's part may have had room beside the weights that had none.
    assert!([0, 1].contains(&(left - first.parts().len())), "{left}");
    save(&store, &memory, 2, 2).unwrap();
    assert_eq!(newest(&store), Some(Step(2)));
}

/// A store whose first write waits until the test has ended.
fn stalled() -> (Arc<FaultyStore>, CheckpointStore) {
    let never = Duration::from_hours(1);
    let faulty = Arc::new(FaultyStore::new(Arc::new(InMemory::new())).at(0, Fault::Slow(never)));
    let store = checkpoints(Arc::clone(&faulty) as Arc<dyn ObjectStore>);
    (faulty, store)
}

#[test]
fn a_save_that_is_abandoned_keeps_nobody_waiting() {
    let (faulty, store) = stalled();
    let (_folder, mut memory) = memory();
    let mut saver = Saver::new(store).unwrap();
    saver.start(request(&memory, 1)).unwrap();
    while faulty.writes() == 0 {
        std::thread::yield_now();
    }
    let begun = std::time::Instant::now();
    saver.abandon();
    assert!(!saver.is_busy() && saver.poll().is_none() && saver.wait().is_none());
    // The next one, which belongs to another generation, is not held up.
    saver.start(request(&memory, 2)).unwrap();
    assert!(saver.wait().unwrap().unwrap().model.is_some());
    drop(saver);
    // Far below the hour that the store takes.
    assert!(begun.elapsed() < Duration::from_mins(1));
    // Its rows are free again: the snapshot went with it, or goes as soon as the thread sees.
    memory.write(LANES[0], VideoIndex(2), Step(3), 1, &[0.5; 12]).unwrap();
}

#[test]
fn the_benchmark_measures_saves_and_notices_every_flip() {
    let folder = tempfile::tempdir().unwrap();
    let small = SaveBench { ranks: 2, bytes: 1 << 16, saves: 2, flips: 20 };
    let rows = small.run(folder.path()).unwrap();
    assert!(rows.iter().all(|row| row.runs > 0 && row.median <= row.p99), "{rows:?}");
    assert_eq!(rows[2].name, "a flipped bit noticed on load, 20 of 20");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
}
