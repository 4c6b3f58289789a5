//! The long memory beside a plain memory map: read the rows of a window, write them all back.
#![allow(unsafe_code, reason = "the memory map that the store is measured beside")]

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Instant;

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};
use longtake_shared::bench::{Row, Times};
use longtake_shared::config::MemoryDtype;
use longtake_shared::ids::{LaneId, Step, VideoIndex};
use longtake_shared::random::Key;
use memmap2::MmapMut;
use rand::RngExt as _;

use crate::model::memory::{MemoryError, MemoryStore};

const CHANNELS: usize = 1024;
/// Rows of a window of 480 frames.
const WINDOW: usize = 240;
/// Rows of a clip of 32 frames: what is written together.
const CLIP: usize = 16;
const VIDEOS: u32 = 20;
const ROWS: usize = 1500;
const STEPS: u64 = 300;
const LANE: LaneId = LaneId(0);

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum MemoryBenchError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] MemoryError),
    /// The map's file cannot be made.
    #[error("the file of the plain memory map cannot be made")]
    Map(#[from] io::Error),
    /// The store and the map gave different rows.
    #[error("the long memory and the plain map hold different rows as {0:?}")]
    Differ(MemoryDtype),
}

/// Measures every stored type, with files below an empty folder.
///
/// # Errors
/// The files cannot be made or used.
pub fn measure(folder: &Path) -> Result<Vec<Row>, MemoryBenchError> {
    let mut rows = Vec::new();
    for dtype in [MemoryDtype::F32, MemoryDtype::F16, MemoryDtype::Bf16] {
        rows.extend(of_type(&folder.join(format!("{dtype:?}")), dtype)?);
    }
    Ok(rows)
}

/// One file with all rows, as the published code keeps one a video.
struct PlainMap {
    map: MmapMut,
    dtype: MemoryDtype,
}

impl PlainMap {
    fn new(file: &File, dtype: MemoryDtype) -> io::Result<Self> {
        file.set_len((VIDEOS as usize * ROWS * CHANNELS * dtype.bytes()) as u64)?;
        // SAFETY: the file was made for this, in this benchmark's folder; nothing else maps, writes or truncates it.
        let map = unsafe { MmapMut::map_mut(file)? };
        Ok(Self { map, dtype })
    }

    fn bytes(&mut self, video: u32, first: usize, rows: usize) -> &mut [u8] {
        let row_bytes = CHANNELS * self.dtype.bytes();
        let start = (video as usize * ROWS + first) * row_bytes;
        &mut self.map[start..start + rows * row_bytes]
    }

    fn read(&mut self, video: u32, first: usize) -> Vec<f32> {
        let dtype = self.dtype;
        let bytes = self.bytes(video, first, WINDOW);
        let mut values = vec![0.0; WINDOW * CHANNELS];
        match dtype {
            MemoryDtype::F32 => values.copy_from_slice(bytemuck::cast_slice(bytes)),
            MemoryDtype::F16 => bytemuck::cast_slice::<u8, f16>(bytes).convert_to_f32_slice(&mut values),
            MemoryDtype::Bf16 => bytemuck::cast_slice::<u8, bf16>(bytes).convert_to_f32_slice(&mut values),
        }
        values
    }

    fn write(&mut self, video: u32, first: usize, values: &[f32]) {
        let dtype = self.dtype;
        let bytes = self.bytes(video, first, values.len() / CHANNELS);
        match dtype {
            MemoryDtype::F32 => bytes.copy_from_slice(bytemuck::cast_slice(values)),
            MemoryDtype::F16 => bytemuck::cast_slice_mut::<u8, f16>(bytes).convert_from_f32_slice(values),
            MemoryDtype::Bf16 => bytemuck::cast_slice_mut::<u8, bf16>(bytes).convert_from_f32_slice(values),
        }
    }
}

/// The clips of a window: first row and values.
fn clips(values: &[f32]) -> impl Iterator<Item = (usize, &[f32])> {
    values.chunks_exact(CLIP * CHANNELS).enumerate().map(|(clip, values)| (clip * CLIP, values))
}

fn of_type(folder: &Path, dtype: MemoryDtype) -> Result<Vec<Row>, MemoryBenchError> {
    let (mut store, _) = MemoryStore::open(&folder.join("store"), CHANNELS, dtype)?;
    let videos: Vec<(VideoIndex, usize)> = (0..VIDEOS).map(|video| (VideoIndex(video), ROWS)).collect();
    store.add_lane(LANE, &videos)?;
    let file = File::options().read(true).write(true).create_new(true).open(folder.join("plain"))?;
    let mut plain = PlainMap::new(&file, dtype)?;
    let values: Vec<f32> = (0..ROWS * CHANNELS).map(|index| (index % 4096) as f32 / 4096.0).collect();
    for (video, _) in &videos {
        store.write(LANE, *video, Step(0), 0, &values)?;
        plain.write(video.0, 0, &values);
    }
    store.flush()?;

    let mut rng = Key::root(1).rng();
    let [mut read, mut write, mut both] = [(); 3].map(|()| [Times::default(), Times::default()]);
    for step in 1..=STEPS {
        let video = rng.random_range(0..VIDEOS);
        let first = rng.random_range(0..ROWS - WINDOW);
        let started = Instant::now();
        let expected = read[1].measure(|| plain.read(video, first));
        write[1]
            .measure(|| clips(&expected).for_each(|(row, values)| plain.write(video, first + row, values)));
        both[1].push(started.elapsed());

        let started = Instant::now();
        let window = read[0].measure(|| store.read(LANE, VideoIndex(video), first as i64, WINDOW))?;
        write[0].measure(|| {
            clips(&window.values).try_for_each(|(row, values)| {
                store.write(LANE, VideoIndex(video), Step(step), (first + row) as i64, values)
            })
        })?;
        both[0].push(started.elapsed());
        if window.values != expected {
            return Err(MemoryBenchError::Differ(dtype));
        }
    }
    let name = |what: &str| format!("{dtype:?}: {what} {WINDOW} rows of {CHANNELS} channels");
    let row = |what, [own, peer]: &[Times; 2]| own.row_beside(name(what), "a plain memory map", peer);
    Ok(vec![row("read", &read), row("write", &write), row("read and write", &both)])
}
