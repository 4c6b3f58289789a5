//! VIDEO FILE -> PICTURES: the embedded decoder for progressive H.264 in MP4, the program `ffmpeg` for everything else.
//!
//! Takes: a path. Gives: Y'CbCr pictures by their position in presentation order. Next: [`crate::data::video`] samples and resizes
//! them. Sampling, colour and resizing are our own code behind either decoder, so that both give the same frames.

mod bytes;
mod colour;
mod container;
mod cut;
mod edits;
mod fault;
mod ffmpeg;
mod ffprobe;
mod fragments;
mod h264;
mod mp4;
mod pictures;
mod process;
mod resize;
mod sample_table;
mod sampling;
mod seek;
mod sps;
mod store;

use std::fs::File;
use std::path::Path;

use longtake_shared::config::DecoderChoice;

pub use self::colour::{Matrix, Range};
pub use self::fault::Fault;
pub(super) use self::resize::Scaler;
pub use self::resize::Turn;
pub(super) use self::sampling::Rate;
pub use self::store::{FrameStore, StoreUse};

use self::colour::ToRgb;
use self::container::Container;
use self::sampling::Timeline;

/// Largest picture that is decoded: 8192x4320.
const MAX_PIXELS: usize = 8192 * 4320;
/// Longest video, in seconds: what claims more is damaged.
const MAX_SECONDS: f64 = 48.0 * 3600.0;

/// One plane of a picture.
#[derive(Debug, Clone, Copy)]
struct Plane<'a> {
    data: &'a [u8],
    stride: usize,
}

impl<'a> Plane<'a> {
    /// `None` if the data do not hold `height` rows of `width`.
    fn new(data: &'a [u8], stride: usize, width: usize, height: usize) -> Option<Self> {
        let needed = stride.checked_mul(height.checked_sub(1)?)?.checked_add(width)?;
        (stride >= width && data.len() >= needed).then_some(Self { data, stride })
    }
}

/// A decoded picture as coded: 4:2:0, not yet turned upright.
#[derive(Debug, Clone, Copy)]
pub(super) struct Picture<'a> {
    y: Plane<'a>,
    cb: Plane<'a>,
    cr: Plane<'a>,
}

impl<'a> Picture<'a> {
    fn new(size: (usize, usize), planes: [&'a [u8]; 3], strides: [usize; 3]) -> Option<Self> {
        let (width, height) = size;
        let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
        Some(Self {
            y: Plane::new(planes[0], strides[0], width, height)?,
            cb: Plane::new(planes[1], strides[1], half_width, half_height)?,
            cr: Plane::new(planes[2], strides[2], half_width, half_height)?,
        })
    }
}

/// Called with the position of a picture in presentation order.
type Visit<'v> = dyn FnMut(usize, &Picture<'_>) + 'v;

/// What is known about a stream before any picture is decoded.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    /// Size as coded.
    coded: (usize, usize),
    turn: Turn,
    matrix: Matrix,
    range: Range,
    timeline: Timeline,
}

impl Stream {
    fn check(self) -> Result<Self, Fault> {
        let (width, height) = self.coded;
        if width == 0 || height == 0 {
            return Err(Fault::damaged("its pictures have no size"));
        }
        if width.checked_mul(height).is_none_or(|pixels| pixels > MAX_PIXELS) {
            return Err(Fault::TooLarge { width, height, limit: MAX_PIXELS });
        }
        if self.timeline.times.is_empty() {
            return Err(Fault::damaged("it has no frames"));
        }
        if self.timeline.seconds() > MAX_SECONDS {
            return Err(Fault::damaged("it claims to be longer than two days"));
        }
        Ok(self)
    }

    /// Size of an upright frame in pixels: (width, height).
    pub(super) fn upright(&self) -> (usize, usize) {
        self.turn.upright(self.coded.0, self.coded.1)
    }

    pub(super) fn frames(&self) -> usize {
        self.timeline.times.len()
    }

    pub(super) fn seconds(&self) -> f64 {
        self.timeline.seconds()
    }

    pub(super) fn sampled_length(&self, rate: Rate) -> usize {
        self.timeline.sampled_length(rate)
    }

    pub(super) fn source(&self, k: usize, rate: Rate) -> usize {
        self.timeline.source(k, rate)
    }

    /// A scaler to upright frames of `size` (width, height).
    pub(super) fn scaler(&self, size: (usize, usize)) -> Scaler {
        Scaler::new(self.coded, size, self.turn, ToRgb::new(self.matrix, self.range))
    }
}

/// An open video behind either decoder.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) decoder: Decoder,
    /// Why this decoder.
    pub(super) reason: String,
}

/// Which code decodes.
pub(super) enum Decoder {
    Embedded(Box<h264::Decoder>),
    Ffmpeg(ffmpeg::Decoder),
}

impl Decoder {
    /// Decodes the pictures at the positions `wanted` (ascending, no doubles) and visits each once, in any order.
    pub(super) fn visit(
        &mut self,
        stream: &Stream,
        wanted: &[usize],
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        match self {
            Self::Embedded(decoder) => decoder.visit(stream, wanted, visit),
            Self::Ffmpeg(decoder) => decoder.visit(stream, wanted, visit),
        }
    }
}

/// Opens a video with the decoder that a user chose, or the one that can.
pub(super) fn open(path: &Path, choice: DecoderChoice, allow_truncated: bool) -> Result<Opened, Fault> {
    // Before it is opened: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(Fault::Open)?.is_file() {
        return Err(Fault::NotVideo("it is no regular file".into()));
    }
    let file = File::open(path).map_err(Fault::Open)?;
    let length = file.metadata().map_err(Fault::Open)?.len();
    if length == 0 {
        return Err(Fault::Empty);
    }
    let container = Container::of(&file, length)?;
    let embedded = if container == Container::Mp4 {
        // Also for ffmpeg: the index says more about what is missing than ffmpeg's messages.
        let track = mp4::read(&file, length);
        check_readable(&track, allow_truncated)?;
        if choice == DecoderChoice::Ffmpeg {
            None
        } else {
            Some(track.and_then(|track| h264::open(file, track)))
        }
    } else {
        if cut::encrypted(&file, length, container)? {
            return Err(Fault::Encrypted("its own scheme".into()));
        }
        Some(Err(Fault::Unsupported(container.sentence())))
    };
    let with_ffmpeg = |reason: String| with_ffmpeg(path, reason, container, allow_truncated);
    match (embedded, choice) {
        (Some(Ok((stream, decoder))), _) => Ok(Opened {
            stream: stream.check()?,
            decoder: Decoder::Embedded(Box::new(decoder)),
            reason: "progressive H.264 in MP4".into(),
        }),
        (Some(Err(Fault::Unsupported(_))), DecoderChoice::Embedded) if container == Container::Unknown => {
            Err(Fault::NotVideo("its first bytes are of no container that the embedded decoder knows".into()))
        }
        (Some(Err(fault)), DecoderChoice::Embedded) => Err(fault),
        (Some(Err(Fault::Unsupported(reason))), _) => with_ffmpeg(reason),
        (Some(Err(fault)), DecoderChoice::Auto) => Err(fault),
        (_, _) => with_ffmpeg("the key `data.decoder` asks for it".into()),
    }
}

/// Refuses an encrypted file, and one whose data are cut unless that is allowed; other faults of the index are left to the caller.
fn check_readable(track: &Result<mp4::Track, Fault>, allow_truncated: bool) -> Result<(), Fault> {
    let Ok(track) = track else {
        return Ok(());
    };
    if let Some(scheme) = &track.encryption {
        return Err(Fault::Encrypted(scheme.clone()));
    }
    if (track.cut && !allow_truncated) || (track.readable == 0 && !track.samples.is_empty()) {
        return Err(Fault::Truncated { readable: track.readable as u64 });
    }
    Ok(())
}

fn with_ffmpeg(
    path: &Path,
    reason: String,
    container: Container,
    allow_truncated: bool,
) -> Result<Opened, Fault> {
    let unavailable = |reason: String| match container {
        Container::Unknown => Fault::NotVideo("its first bytes are of no known container".into()),
        _ => Fault::NoFfmpeg(reason),
    };
    let Some(programs) = ffmpeg::Programs::find() else {
        return Err(unavailable(reason));
    };
    let (stream, decoder) = ffmpeg::open(path, programs, container, allow_truncated)?;
    Ok(Opened { stream: stream.check()?, decoder: Decoder::Ffmpeg(decoder), reason })
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod fixture_tests;
#[cfg(test)]
mod real_tests;
