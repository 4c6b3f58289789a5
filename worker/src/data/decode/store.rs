//! Decoded and resized frames kept in memory, so that the epochs of a small data set decode each video once.
//!
//! Takes: a video's path and a range of frames. Gives: the frames. Next: clips are cut from them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longtake_shared::config::{DataConfig, DecoderChoice};
use longtake_shared::units::{ByteCount, FrameIndex};

use crate::data::video::{FrameBlock, VideoError, VideoReader};

/// Frames of a segment, the unit that is kept and dropped: at 15 frames a second some 4 seconds.
const SEGMENT: usize = 64;
/// Videos that are kept open. An open one costs its index and, once read, a decoder's reference pictures.
const OPEN_VIDEOS: usize = 16;

/// How frames are wanted; part of every key.
#[derive(Debug, Clone, Copy)]
struct Shape {
    fps: f64,
    height: usize,
    width: usize,
}

/// Frames of many videos at one rate and size, shared by the threads that load.
///
/// Least recently used segments go when a limit of bytes is reached. Frames are bytes, as decoded: cropping, augmentation and
/// normalisation come later.
pub struct FrameStore {
    shape: Shape,
    decoder: DecoderChoice,
    allow_truncated: bool,
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    segments: HashMap<(Arc<Path>, usize), Segment>,
    /// Use -> segment: the first is the one that was not used for longest.
    by_use: BTreeMap<u64, (Arc<Path>, usize)>,
    uses: u64,
    bytes: usize,
    lengths: HashMap<Arc<Path>, usize>,
    /// Open readers that nobody uses right now, oldest first.
    idle: Vec<(Arc<Path>, VideoReader)>,
    hits: u64,
    misses: u64,
}

/// `[T, H, W, 3]` of one segment.
type Frames = Arc<[u8]>;

struct Segment {
    rgb: Frames,
    last_use: u64,
}

/// How well the store serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreUse {
    /// Bytes of frames that are kept.
    pub bytes: ByteCount,
    /// Segments that were there when asked for.
    pub hits: u64,
    /// Segments that had to be decoded.
    pub misses: u64,
}

impl FrameStore {
    /// A store that decodes as the settings say and keeps `data.frame_cache` bytes.
    pub fn new(config: &DataConfig) -> Self {
        Self {
            shape: Shape { fps: config.fps, height: config.frame_height, width: config.frame_width },
            decoder: config.decoder,
            allow_truncated: config.allow_truncated,
            limit: usize::try_from(config.frame_cache.0).unwrap_or(usize::MAX),
            state: Mutex::new(State::default()),
        }
    }

    /// Frames of a video at the store's rate.
    pub fn length(&self, video: &Path) -> Result<usize, VideoError> {
        if let Some(length) = self.state().lengths.get(video) {
            return Ok(*length);
        }
        let reader = self.reader(video)?;
        let length = reader.sampled_length(self.shape.fps);
        let (path, info) = (video.display(), reader.info());
        tracing::info!(video = %path, decoder = info.decoder.name(), reason = info.reason, "opened a video");
        self.give_back(&Arc::from(video), reader, length);
        Ok(length)
    }

    /// The frames `first` to `first + count`; those outside the video are left out, as in [`VideoReader::read`].
    ///
    /// Only what is missing is decoded, in runs of whole segments. Two threads that miss the same segment at the same time both
    /// decode it, and get the same bytes.
    pub fn frames(&self, video: &Path, first: FrameIndex, count: usize) -> Result<FrameBlock, VideoError> {
        let length = self.length(video)? as i64;
        let end = first.0.saturating_add_unsigned(count as u64).clamp(0, length) as usize;
        let start = (first.0.clamp(0, end as i64)) as usize;
        let Shape { height, width, .. } = self.shape;
        let frame_bytes = height * width * 3;
        let mut rgb = Vec::with_capacity((end - start) * frame_bytes);
        for (segment, bytes) in self.segments(video, start..end)? {
            let begins = segment * SEGMENT;
            let from = start.saturating_sub(begins) * frame_bytes;
            let to = ((end - begins) * frame_bytes).min(bytes.len());
            rgb.extend_from_slice(&bytes[from..to]);
        }
        Ok(FrameBlock { first: FrameIndex(start as i64), count: end - start, height, width, rgb })
    }

    /// How well the store serves.
    pub fn usage(&self) -> StoreUse {
        let state = self.state();
        StoreUse { bytes: ByteCount(state.bytes as u64), hits: state.hits, misses: state.misses }
    }

    /// The segments that hold a range of frames, in order.
    fn segments(&self, video: &Path, frames: Range<usize>) -> Result<Vec<(usize, Frames)>, VideoError> {
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        let video: Arc<Path> = Arc::from(video);
        let numbers = frames.start / SEGMENT..frames.end.div_ceil(SEGMENT);
        let mut found: Vec<Option<Frames>> = {
            let mut state = self.state();
            numbers.clone().map(|number| state.touch(&video, number)).collect()
        };
        if found.iter().any(Option::is_none) {
            let mut reader = self.reader(&video)?;
            for run in gaps(&found) {
                let first = numbers.start + run.start;
                let decoded = self.decode(&mut reader, first, run.len())?;
                for (slot, rgb) in run.zip(decoded) {
                    self.state().insert(&video, numbers.start + slot, &rgb, self.limit);
                    found[slot] = Some(rgb);
                }
            }
            let length = reader.sampled_length(self.shape.fps);
            self.give_back(&video, reader, length);
        }
        Ok(numbers.zip(found.into_iter().flatten()).collect())
    }

    fn decode(
        &self,
        reader: &mut VideoReader,
        first: usize,
        count: usize,
    ) -> Result<Vec<Frames>, VideoError> {
        let Shape { fps, height, width } = self.shape;
        let block = reader.read(fps, FrameIndex((first * SEGMENT) as i64), count * SEGMENT, height, width)?;
        Ok(block.rgb.chunks(SEGMENT * height * width * 3).map(Arc::from).collect())
    }

    fn reader(&self, video: &Path) -> Result<VideoReader, VideoError> {
        let idle = {
            let mut state = self.state();
            let at = state.idle.iter().position(|(path, _)| **path == *video);
            at.map(|at| state.idle.remove(at).1)
        };
        idle.map_or_else(|| VideoReader::open(video, self.decoder, self.allow_truncated), Ok)
    }

    fn give_back(&self, video: &Arc<Path>, reader: VideoReader, length: usize) {
        let mut state = self.state();
        state.lengths.insert(Arc::clone(video), length);
        state.idle.push((Arc::clone(video), reader));
        let dropped = if state.idle.len() > OPEN_VIDEOS { Some(state.idle.remove(0)) } else { None };
        // Closing a file under the lock would make the other threads wait for the file system.
        drop(state);
        drop(dropped);
    }

    /// The state holds plain data that every operation leaves whole, so a panic of another thread does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs of missing segments.
fn gaps(found: &[Option<Frames>]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for at in (0..found.len()).filter(|at| found[*at].is_none()) {
        match runs.last_mut() {
            Some(run) if run.end == at => run.end += 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

impl State {
    fn touch(&mut self, video: &Arc<Path>, number: usize) -> Option<Frames> {
        self.uses += 1;
        let uses = self.uses;
        let key = (Arc::clone(video), number);
        let Some(segment) = self.segments.get_mut(&key) else {
            self.misses += 1;
            return None;
        };
        self.hits += 1;
        self.by_use.remove(&segment.last_use);
        segment.last_use = uses;
        self.by_use.insert(uses, key);
        Some(Arc::clone(&segment.rgb))
    }

    fn insert(&mut self, video: &Arc<Path>, number: usize, rgb: &Frames, limit: usize) {
        let key = (Arc::clone(video), number);
        if rgb.len() > limit || self.segments.contains_key(&key) {
            return;
        }
        while self.bytes + rgb.len() > limit {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            if let Some(gone) = self.segments.remove(&oldest) {
                self.bytes -= gone.rgb.len();
            }
        }
        self.uses += 1;
        self.bytes += rgb.len();
        self.by_use.insert(self.uses, key.clone());
        self.segments.insert(key, Segment { rgb: Arc::clone(rgb), last_use: self.uses });
    }
}
