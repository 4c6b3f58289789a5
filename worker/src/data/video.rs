//! The one door to video files: what is in them, and their frames at any rate and size.
//!
//! Takes: a path. Gives: upright RGB frames of a constant rate. Next: windows and clips are cut from them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use longtake_shared::config::{DataConfig, DecoderChoice};
pub use longtake_shared::dataset::DecoderKind;
use longtake_shared::hint::Hint;
use longtake_shared::role::Depth;
use longtake_shared::units::{FrameIndex, Seconds};

use super::decode::{self, Decoder, Opened, Rate, Stream};
pub use super::decode::{Fault, FrameStore, StoreUse};

/// A video that cannot be read, and why.
#[derive(Debug, thiserror::Error)]
#[error("video `{}` {fault}", path.display())]
pub struct VideoError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

impl Hint for VideoError {
    fn hint(&self) -> Option<String> {
        Some(self.fault.hint().to_owned())
    }
}

/// What is known about a video without decoding more than its first picture.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoInfo {
    /// Columns of an upright frame.
    pub width: usize,
    /// Rows of an upright frame.
    pub height: usize,
    /// Source frames that are shown.
    pub frames: u64,
    /// From time 0 to the end of the last frame.
    pub duration: Seconds,
    /// What decodes it.
    pub decoder: DecoderKind,
    /// Why that one.
    pub reason: String,
}

/// Consecutive frames of a video at a constant rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameBlock {
    /// Position of the first frame.
    pub first: FrameIndex,
    /// Number of frames.
    pub count: usize,
    /// Rows of a frame.
    pub height: usize,
    /// Columns of a frame.
    pub width: usize,
    /// `[T, H, W, 3]`, each 0 to 255.
    pub rgb: Vec<u8>,
}

impl FrameBlock {
    /// Frame `k` of the block, `[H, W, 3]`.
    pub fn frame(&self, k: usize) -> &[u8] {
        let bytes = self.height * self.width * 3;
        &self.rgb[k * bytes..(k + 1) * bytes]
    }
}

/// What is in a video, or why it cannot be used, by the settings of a data set.
pub fn probe(path: &Path, data: &DataConfig) -> Result<VideoInfo, VideoError> {
    VideoReader::open(path, data.decoder, data.allow_truncated).map(|reader| reader.info())
}

/// Pictures of one place that [`Depth::Ends`] decodes.
const EXAMINED_PICTURES: usize = 8;

/// Pictures that are decoded at once by [`Depth::Whole`].
const PICTURES_AT_ONCE: usize = 512;

/// Decodes parts of a video or all of it, and drops the pictures.
///
/// # Errors
/// As [`probe`], and the first picture that cannot be decoded with its time in seconds and the decoder's reason.
pub fn examine(path: &Path, data: &DataConfig, depth: Depth) -> Result<VideoInfo, VideoError> {
    let mut reader = VideoReader::open(path, data.decoder, data.allow_truncated)?;
    let frames = reader.stream.frames();
    let VideoReader { stream, decoder, .. } = &mut reader;
    for places in examined(frames, depth) {
        let wanted: Vec<usize> = places.collect();
        decoder
            .visit(stream, &wanted, &mut |_, _| {})
            .map_err(|fault| VideoError { path: path.to_owned(), fault })?;
    }
    Ok(reader.info())
}

/// The pictures, by position, that are decoded to examine a video.
fn examined(frames: usize, depth: Depth) -> Vec<Range<usize>> {
    let run = |first: usize, count: usize| first..(first + count).min(frames);
    match depth {
        Depth::Whole => (0..frames).step_by(PICTURES_AT_ONCE).map(|at| run(at, PICTURES_AT_ONCE)).collect(),
        Depth::Ends if frames <= 3 * EXAMINED_PICTURES => vec![0..frames],
        Depth::Ends => {
            [0, frames / 2, frames - EXAMINED_PICTURES].map(|first| run(first, EXAMINED_PICTURES)).to_vec()
        }
    }
}

/// Largest side of a frame that is asked for, in pixels.
const MAX_SIDE: usize = 8192;

/// Largest block that is read at once.
const MAX_BLOCK_BYTES: usize = 16 << 30;

/// An open video. Reads any range of frames; reading on from where the last range ended costs no seek.
pub struct VideoReader {
    path: PathBuf,
    stream: Stream,
    decoder: Decoder,
    reason: String,
}

impl VideoReader {
    /// Opens a video with the decoder of the choice; of a truncated one, the readable frames if allowed.
    pub fn open(path: &Path, choice: DecoderChoice, allow_truncated: bool) -> Result<Self, VideoError> {
        let opened = decode::open(path, choice, allow_truncated);
        let Opened { stream, decoder, reason } =
            opened.map_err(|fault| VideoError { path: path.to_owned(), fault })?;
        Ok(Self { path: path.to_owned(), stream, decoder, reason })
    }

    /// What is in it.
    pub fn info(&self) -> VideoInfo {
        let (width, height) = self.stream.upright();
        VideoInfo {
            width,
            height,
            frames: self.stream.frames() as u64,
            duration: Seconds(self.stream.seconds()),
            decoder: match self.decoder {
                Decoder::Embedded(_) => DecoderKind::Embedded,
                Decoder::Ffmpeg(_) => DecoderKind::Ffmpeg,
            },
            reason: self.reason.clone(),
        }
    }

    /// Number of frames at a rate: the end of the last source frame, times the rate, rounded. 0 for an impossible rate.
    pub fn sampled_length(&self, fps: f64) -> usize {
        Rate::from_fps(fps).map_or(0, |rate| self.stream.sampled_length(rate))
    }

    /// The frames `first` to `first + count` at a rate, resized to `height` x `width` without keeping the aspect ratio.
    ///
    /// Frame k shows the last source frame whose presentation time, times `fps`, rounded to the nearest integer, is at most k
    /// (what ffmpeg's filter `fps` does). Frames outside the video are left out: the block says what it holds.
    pub fn read(
        &mut self,
        fps: f64,
        first: FrameIndex,
        count: usize,
        height: usize,
        width: usize,
    ) -> Result<FrameBlock, VideoError> {
        self.read_frames(fps, first, count, height, width)
            .map_err(|fault| VideoError { path: self.path.clone(), fault })
    }

    fn read_frames(
        &mut self,
        fps: f64,
        first: FrameIndex,
        count: usize,
        height: usize,
        width: usize,
    ) -> Result<FrameBlock, Fault> {
        let rate = Rate::from_fps(fps)
            .ok_or_else(|| Fault::Request(format!("{fps} frames a second is not a rate from 0 to 1000")))?;
        if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
            return Err(Fault::Request(format!(
                "a frame of {width}x{height} pixels is not from 1 to {MAX_SIDE}"
            )));
        }
        let length = self.stream.sampled_length(rate) as i64;
        let end = first.0.saturating_add_unsigned(count as u64).clamp(0, length);
        let start = first.0.clamp(0, end);
        let sources: Vec<usize> = (start..end).map(|k| self.stream.source(k as usize, rate)).collect();
        let mut wanted = sources.clone();
        wanted.dedup();

        let frame_bytes = height * width * 3;
        let bytes = sources.len().saturating_mul(frame_bytes);
        if bytes > MAX_BLOCK_BYTES {
            return Err(Fault::Request(format!(
                "{} frames of {width}x{height} are more than 16 GiB",
                sources.len()
            )));
        }
        let mut rgb = vec![0; bytes];
        let mut scaler = self.stream.scaler((width, height));
        self.decoder.visit(&self.stream, &wanted, &mut |position, picture| {
            let slots =
                sources.partition_point(|&at| at < position)..sources.partition_point(|&at| at <= position);
            let bytes = slots.start * frame_bytes..slots.end * frame_bytes;
            let (shown, repeats) = rgb[bytes].split_at_mut(frame_bytes);
            scaler.write(picture, shown);
            repeats.chunks_exact_mut(frame_bytes).for_each(|repeat| repeat.copy_from_slice(shown));
        })?;
        Ok(FrameBlock { first: FrameIndex(start), count: sources.len(), height, width, rgb })
    }
}
