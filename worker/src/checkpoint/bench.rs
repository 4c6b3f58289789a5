//! How long saving a checkpoint keeps training waiting, how soon it is durable, and whether flipped bits are noticed.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use longtake_shared::bench::{Row, Times};
use longtake_shared::checkpoint::{CheckpointStore, ContentHash};
use longtake_shared::hint::Failure;
use longtake_shared::objects::Objects;
use longtake_shared::random::Key;
use rand::{Rng as _, RngExt as _};

use super::{SaveRequest, Saver};
use crate::tensors::{NamedTensor, TensorData, TensorFile};

/// Saves that are kept at a time, as a run's retention does: what is removed gives its memory back to the next.
const KEPT: usize = 2;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct SaveBench {
    /// Ranks that save at a time.
    pub ranks: usize,
    /// Bytes of state a rank.
    pub bytes: usize,
    /// Checkpoints that are saved.
    pub saves: usize,
    /// Bits that are flipped, one at a time.
    pub flips: usize,
}

impl Default for SaveBench {
    fn default() -> Self {
        Self { ranks: 4, bytes: 128 << 20, saves: 10, flips: 1000 }
    }
}

/// One save of one rank.
struct Measured {
    blocked: Duration,
    durable: Duration,
}

impl SaveBench {
    /// Saves below a folder, which is made and left empty.
    ///
    /// # Errors
    /// The folder cannot be written, or a save failed.
    pub fn run(&self, folder: &Path) -> Result<Vec<Row>, Failure> {
        let folder = folder.join("longtake-bench-checkpoint");
        let measured = self.save(&folder);
        let removed = std::fs::remove_dir_all(&folder);
        let measured = measured?;
        removed
            .map_err(|error| Failure::new(format!("`{}` cannot be removed: {error}", folder.display())))?;
        let (mut blocked, mut durable) = (Times::default(), Times::default());
        for save in measured {
            blocked.push(save.blocked);
            durable.push(save.durable);
        }
        let size = format!("{} MiB x {} ranks", self.bytes >> 20, self.ranks);
        let (noticed, flips) = self.flip()?;
        Ok(vec![
            blocked.row(format!("saving {size}: training waits")),
            durable.row(format!("saving {size}: durable")),
            flips.row(format!("a flipped bit noticed on load, {noticed} of {}", self.flips)),
        ])
    }

    /// All ranks save at the same moment, again and again.
    fn save(&self, folder: &Path) -> Result<Vec<Measured>, Failure> {
        let store = CheckpointStore::new(Objects::open(&folder.to_string_lossy())?);
        let barrier = std::sync::Barrier::new(self.ranks);
        let all: Result<Vec<Vec<Measured>>, Failure> = std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..self.ranks)
                .map(|rank| {
                    let (store, barrier) = (store.clone(), &barrier);
                    scope.spawn(move || self.rank(rank, store, folder, barrier))
                })
                .collect();
            let ended = ranks.into_iter().map(std::thread::ScopedJoinHandle::join);
            ended
                .map(|rank| rank.unwrap_or_else(|_| Err(Failure::new("a rank of the benchmark panicked"))))
                .collect()
        });
        Ok(all?.into_iter().flatten().collect())
    }

    fn rank(
        &self,
        rank: usize,
        store: CheckpointStore,
        folder: &Path,
        barrier: &std::sync::Barrier,
    ) -> Result<Vec<Measured>, Failure> {
        let mut saver = Saver::new(store);
        let mut state = vec![rank as f32; self.bytes / size_of::<f32>()];
        let (mut measured, mut kept) = (Vec::new(), VecDeque::new());
        for save in 0..self.saves {
            // A step of training: every value is another one.
            for value in &mut state {
                *value += 1.0 + save as f32;
            }
            // A rank that has failed still meets the others here, so that none of them waits for ever.
            barrier.wait();
            let Ok(saver) = saver.as_mut() else { continue };
            let begun = Instant::now();
            let tensor = NamedTensor {
                name: "state".into(),
                shape: vec![state.len()],
                data: TensorData::F32(state.clone()),
            };
            let content = TensorFile { tensors: vec![tensor], ..TensorFile::default() };
            let started = saver.start(SaveRequest {
                model: Some(content),
                optimizer: None,
                memory: None,
                videos_a_part: 1,
            });
            let blocked = begun.elapsed();
            let saved = started.and_then(|()| saver.wait().unwrap_or(Err(super::SaveError::Stopped)));
            let durable = begun.elapsed();
            kept.extend(saved.iter().filter_map(|saved| saved.model));
            measured.push(saved.map(|_| Measured { blocked, durable }));
            if kept.len() > KEPT
                && let Some(part) = kept.pop_front()
            {
                // A file that stays only takes more of the disk until the benchmark has ended.
                let _ = std::fs::remove_file(folder.join(part.object()));
            }
        }
        saver?;
        measured.into_iter().collect::<Result<_, _>>().map_err(Failure::from)
    }

    /// Flips bits of a part in memory and counts how many of them loading notices.
    fn flip(&self) -> Result<(usize, Times), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(format!("the benchmark needs a runtime: {error}")))?;
        let objects = Objects::new(Arc::new(object_store::memory::InMemory::new()), "");
        let store = CheckpointStore::new(objects.clone());
        let mut rng = Key::root(1).child("bit flips", 0).rng();
        let mut bytes = vec![0; 64 << 10];
        rng.fill_bytes(&mut bytes);
        let (mut noticed, mut times) = (0, Times::default());
        runtime.block_on(async {
            let part = store.put_part(Bytes::from(bytes.clone())).await?;
            for _ in 0..self.flips {
                let bit = rng.random_range(0..bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                objects.put(&part.object(), Bytes::from(bytes.clone())).await?;
                let begun = Instant::now();
                noticed += usize::from(store.get_part(&part).await.is_err());
                times.push(begun.elapsed());
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            debug_assert_eq!(ContentHash::of(&bytes), part.hash, "every flip was undone");
            Ok((noticed, times))
        })
    }
}
