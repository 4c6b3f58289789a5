//! The long memory against a plain memory map: read the rows of a window, write them all back.
//!
//! `cargo bench -p longtake-worker --bench memory_store` prints the medians of both and their ratio, by stored type.
#![allow(unsafe_code, reason = "the memory map that the store is measured against")]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::time::{Duration, Instant};

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};
use longtake_shared::config::MemoryDtype;
use longtake_shared::ids::{LaneId, Step, VideoIndex};
use longtake_shared::random::Key;
use longtake_worker::model::memory::MemoryStore;
use memmap2::MmapMut;
use rand::RngExt as _;

const CHANNELS: usize = 1024;
/// Rows of a window of 480 frames.
const WINDOW: usize = 240;
/// Rows of a clip of 32 frames: what is written together.
const CLIP: usize = 16;
const VIDEOS: u32 = 20;
const ROWS: usize = 1500;
const STEPS: u64 = 300;
const LANE: LaneId = LaneId(0);

/// One file with all rows, as the published code keeps one a video.
struct PlainMap {
    map: MmapMut,
    dtype: MemoryDtype,
}

impl PlainMap {
    fn new(file: &std::fs::File, dtype: MemoryDtype) -> std::io::Result<Self> {
        file.set_len((VIDEOS as usize * ROWS * CHANNELS * dtype.bytes()) as u64)?;
        // SAFETY: the file is this process's own temporary file; nothing else maps, writes or truncates it.
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

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn measure(dtype: MemoryDtype) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (mut store, _) = MemoryStore::open(&folder.path().join("store"), CHANNELS, dtype)?;
    let videos: Vec<(VideoIndex, usize)> = (0..VIDEOS).map(|video| (VideoIndex(video), ROWS)).collect();
    store.add_lane(LANE, &videos)?;
    let map =
        std::fs::File::options().read(true).write(true).create_new(true).open(folder.path().join("plain"))?;
    let mut plain = PlainMap::new(&map, dtype)?;
    let values: Vec<f32> = (0..ROWS * CHANNELS).map(|index| (index % 4096) as f32 / 4096.0).collect();
    for (video, _) in &videos {
        store.write(LANE, *video, Step(0), 0, &values)?;
        plain.write(video.0, 0, &values);
    }
    store.flush()?;

    let mut rng = Key::root(1).rng();
    let mut times = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for step in 1..=STEPS {
        let video = rng.random_range(0..VIDEOS);
        let first = rng.random_range(0..ROWS - WINDOW);
        let mut clock = Instant::now();
        let mut lap = |kind: usize, clock: &mut Instant| {
            times[kind].push(clock.elapsed());
            *clock = Instant::now();
        };
        let expected = plain.read(video, first);
        lap(0, &mut clock);
        for clip in 0..WINDOW / CLIP {
            let rows = &expected[clip * CLIP * CHANNELS..][..CLIP * CHANNELS];
            plain.write(video, first + clip * CLIP, rows);
        }
        lap(1, &mut clock);
        let window = store.read(LANE, VideoIndex(video), first as i64, WINDOW)?;
        lap(2, &mut clock);
        for clip in 0..WINDOW / CLIP {
            let rows = &window.values[clip * CLIP * CHANNELS..][..CLIP * CHANNELS];
            store.write(LANE, VideoIndex(video), Step(step), (first + clip * CLIP) as i64, rows)?;
        }
        lap(3, &mut clock);
        assert_eq!(window.values, expected, "both hold the same");
    }
    let slots = store.slots() as f64 / (VIDEOS as usize * ROWS) as f64;
    let [plain_read, plain_write, store_read, store_write] = times.map(median);
    println!(
        "{dtype:?}: plain map {plain_read:.0} + {plain_write:.0} us, store {store_read:.0} + {store_write:.0} us \
         (read + write of {WINDOW} rows), ratio {:.2}, slab {slots:.2} x the rows",
        (store_read + store_write) / (plain_read + plain_write)
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    for dtype in [MemoryDtype::F32, MemoryDtype::F16, MemoryDtype::Bf16] {
        measure(dtype)?;
    }
    Ok(())
}
