//! The embedded decoder: Cisco's OpenH264, compiled in, fed with the samples of an MP4 track.
//!
//! Takes: a track's index. Gives: pictures by presentation position. Next: `super::resize`.
//!
//! OpenH264 is made to give each picture right after its sample (`sps::in_decoding_order`); the file's index says at which
//! position that sample is shown.

use std::fs::File;
use std::os::unix::fs::FileExt;

use openh264::OpenH264API;
use openh264::decoder::{DecodeOptions, Decoder as OpenH264, DecoderConfig, Flush};
use openh264::formats::YUVSource;

use super::bytes::Bytes;
use super::colour::{Matrix, Range};
use super::fault::Fault;
use super::mp4::{Sample, Track};
use super::sampling::Timeline;
use super::sps::{self, Sps};
use super::{MAX_PIXELS, Picture, Stream, Visit};

/// Largest coded picture that is read: uncompressed 8192x4320 would be 53 MB.
const MAX_SAMPLE_BYTES: u32 = 64 << 20;
/// Bytes of a sample that hold the headers in front of its picture.
const HEADER_BYTES: u32 = 4096;
/// NAL units that may come before a picture's first slice.
const MAX_HEADERS: usize = 64;
/// Types of NAL units (ITU-T H.264, table 7-1).
const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
/// Profiles that OpenH264 decodes: baseline, main, high.
const PROFILES: [u8; 3] = [66, 77, 100];
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// Decodes one track.
pub(in crate::data) struct Decoder {
    file: File,
    samples: Vec<Sample>,
    /// Presentation position -> sample.
    shown: Vec<u32>,
    timescale: u32,
    /// When the first picture is shown, in ticks.
    first: i64,
    configuration: Configuration,
    /// Per sample, once looked at: whether it is an IDR picture.
    idr: Vec<Option<bool>>,
    /// Where decoding stands; `None` until the first picture and after an error.
    cursor: Option<Cursor>,
    sample: Vec<u8>,
    annex_b: Vec<u8>,
    /// Samples that were decoded: what a seek costs.
    #[cfg(test)]
    pub(super) decoded: usize,
}

/// A decoder that has been fed all samples from a sync sample up to `next`.
struct Cursor {
    decoder: OpenH264,
    next: usize,
}

/// The `avcC` box (ISO/IEC 14496-15, section 5.3.3.1).
struct Configuration {
    length_bytes: usize,
    /// As OpenH264 is given them.
    parameter_sets: Vec<Vec<u8>>,
    /// The sequence parameter set as written.
    original: Vec<u8>,
    sps: Sps,
}

impl Configuration {
    fn parse(avcc: &[u8]) -> Option<Self> {
        let mut bytes = Bytes::new(avcc);
        bytes.take(4)?;
        let length_bytes = usize::from(bytes.u8()? & 3) + 1;
        let mut parameter_sets = Vec::new();
        for mask in [0x1f, 0xff] {
            for _ in 0..bytes.u8()? & mask {
                let size = usize::from(bytes.u16()?);
                parameter_sets.push(bytes.take(size)?.to_vec());
            }
        }
        let original: Vec<u8> = parameter_sets.iter().find(|nal| kind(nal) == SPS)?.clone();
        let sps = Sps::parse(&original)?;
        // One set of each kind is what cameras and encoders write; of extensions for scalable video nothing is decoded.
        parameter_sets.retain(|nal| kind(nal) == PPS);
        parameter_sets.insert(0, sps::in_decoding_order(&original)?);
        Some(Self { length_bytes, parameter_sets, original, sps })
    }
}

fn kind(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & 0x1f)
}

/// Whether other pictures may refer to this slice's.
fn is_reference(nal: &[u8]) -> bool {
    nal.first().is_some_and(|header| header & 0x60 != 0)
}

/// Takes a track if it is progressive 8-bit 4:2:0 H.264 and its first picture decodes; [`Fault::Unsupported`] says why not.
pub(super) fn open(file: File, track: Track) -> Result<(Stream, Decoder), Fault> {
    let name = match &track.coding {
        b"avc1" => None,
        b"avc3" => Some("H.264 with its parameters inside the stream"),
        b"hvc1" | b"hev1" => Some("HEVC"),
        b"av01" => Some("AV1"),
        b"vp08" | b"vp09" => Some("VP8 or VP9"),
        b"mp4v" => Some("MPEG-4 Part 2"),
        b"many" => Some("of several kinds"),
        _ => Some("neither H.264 nor anything it knows"),
    };
    if let Some(name) = name {
        return Err(Fault::unsupported(format!("its video is {name}")));
    }
    let configuration = Configuration::parse(&track.decoder_configuration)
        .ok_or_else(|| Fault::damaged("its H.264 parameters make no sense"))?;
    let sps = &configuration.sps;
    let reason = if !PROFILES.contains(&sps.profile) {
        Some(format!("its H.264 profile is {}", sps.profile))
    } else if !sps.progressive {
        Some("its H.264 is interlaced".into())
    } else if sps.chroma_format != 1 || sps.bit_depth != 8 {
        Some("its H.264 is not 8-bit 4:2:0".into())
    } else {
        None
    };
    if let Some(reason) = reason {
        return Err(Fault::Unsupported(reason));
    }
    let (width, height) = (sps.width, sps.height);
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err(Fault::TooLarge { width, height, limit: MAX_PIXELS });
    }
    let (timeline, shown) = timeline(&track);
    let colour = track.colour;
    let matrix = sps.matrix.or_else(|| colour.and_then(|(code, _)| Matrix::from_code(code)));
    let full = colour.map(|(_, full)| if full { Range::Full } else { Range::Limited });
    let stream = Stream {
        coded: (width, height),
        turn: track.turn,
        matrix: matrix.unwrap_or_else(|| Matrix::usual(height)),
        range: sps.range.or(full).unwrap_or(Range::Limited),
        timeline,
    }
    .check()?;
    let mut samples = track.samples;
    samples.truncate(track.readable);
    let mut decoder = Decoder {
        file,
        idr: vec![None; samples.len()],
        samples,
        shown,
        timescale: track.timescale,
        first: stream.timeline.times[0],
        configuration,
        cursor: None,
        sample: Vec::new(),
        annex_b: Vec::new(),
        #[cfg(test)]
        decoded: 0,
    };
    decoder.check_coding()?;
    decoder.check_first(&stream)?;
    Ok((stream, decoder))
}

/// When each readable, shown sample is presented, and which sample that is.
fn timeline(track: &Track) -> (Timeline, Vec<u32>) {
    let until = track.shown_until.unwrap_or(i64::MAX);
    let mut order: Vec<(i64, u32)> = (0u32..)
        .zip(&track.samples[..track.readable])
        .filter(|(_, sample)| sample.time >= 0 && sample.time < until)
        .map(|(number, sample)| (sample.time, number))
        .collect();
    order.sort_unstable();
    // The table holds times to the next sample in decoding order, so only the last one's is how long a picture is shown.
    let own = track.samples[..track.readable].last().map_or(0, |sample| i64::from(sample.duration));
    let before = order.iter().rev().nth(1).zip(order.last()).map_or(0, |(before, last)| last.0 - before.0);
    let length = if own > 0 { own } else { before };
    let end = order.last().map_or(0, |(time, _)| time.saturating_add(length));
    let (times, shown) = order.into_iter().unzip();
    (Timeline { tick: (1, track.timescale), times, end }, shown)
}

impl Decoder {
    /// What the parameters promise, OpenH264 must keep: a stream whose first picture it refuses is one for ffmpeg.
    fn check_first(&mut self, stream: &Stream) -> Result<(), Fault> {
        if !self.is_idr(0)? {
            return Err(Fault::unsupported("its H.264 does not start with an IDR picture"));
        }
        let first = self.shown.iter().position(|&sample| sample == 0);
        match self.visit(stream, first.as_slice(), &mut |_, _| {}) {
            Err(Fault::Damaged(reason)) => {
                Err(Fault::Unsupported(format!("its first picture does not decode: {reason}")))
            }
            other => other,
        }
    }

    /// One coding from beginning to end, and no turn that only the pictures tell of: all else is for ffmpeg. Looks at the
    /// headers in front of each picture that decoding can start at.
    fn check_coding(&mut self) -> Result<(), Fault> {
        let mut head = Vec::new();
        for number in 0..self.samples.len() {
            let sample = self.samples[number];
            if !sample.sync {
                continue;
            }
            head.resize(sample.size.min(HEADER_BYTES) as usize, 0);
            self.file.read_exact_at(&mut head, sample.offset).map_err(Fault::Read)?;
            let mut bytes = Bytes::new(&head);
            let length_bytes = self.configuration.length_bytes;
            while let Some(nal) = bytes.take(length_bytes).and_then(|length| bytes.take(nal_length(length))) {
                if kind(nal) == SPS && nal != self.configuration.original {
                    let time = self.time(number);
                    return Err(Fault::unsupported(format!(
                        "the coding of its pictures changes at {time:.2} s"
                    )));
                }
                if number == 0 && kind(nal) == SEI && sps::turns(nal) {
                    return Err(Fault::unsupported("its pictures themselves say how they are turned"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn visit(
        &mut self,
        stream: &Stream,
        wanted: &[usize],
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        let mut targets: Vec<(usize, usize)> =
            wanted.iter().map(|&position| (self.shown[position] as usize, position)).collect();
        targets.sort_unstable();
        for (target, position) in targets {
            let entry = self.entry(target)?;
            // Taken out while it works: an error leaves none behind, and the next request starts at an entry again.
            let mut cursor = match self.cursor.take().filter(|at| (entry..=target).contains(&at.next)) {
                Some(cursor) => cursor,
                None => Cursor { decoder: self.start()?, next: entry },
            };
            while cursor.next < target {
                if self.load(cursor.next, false)? {
                    self.decode(&mut cursor, stream, |_| {})?;
                }
                cursor.next += 1;
            }
            self.load(target, true)?;
            if !self.decode(&mut cursor, stream, |picture| visit(position, picture))? {
                return Err(self.undecodable(target, "it gives no picture"));
            }
            cursor.next += 1;
            self.cursor = Some(cursor);
        }
        Ok(())
    }

    /// The last sample at or before `target` that decoding can start at: sync in the index, and an IDR picture in fact.
    fn entry(&mut self, target: usize) -> Result<usize, Fault> {
        for number in (0..=target).rev() {
            if self.samples[number].sync && self.is_idr(number)? {
                return Ok(number);
            }
        }
        Err(Fault::damaged("it has no picture that decoding can start at"))
    }

    fn start(&self) -> Result<OpenH264, Fault> {
        let refused =
            |error: openh264::Error| Fault::damaged(format!("OpenH264 refuses its parameters: {error}"));
        let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
        let mut decoder = OpenH264::with_api_config(OpenH264API::from_source(), config).map_err(refused)?;
        let mut headers = Vec::new();
        for nal in &self.configuration.parameter_sets {
            headers.extend_from_slice(&START_CODE);
            headers.extend_from_slice(nal);
        }
        decoder.decode_with_options(&headers, DecodeOptions::new()).map_err(refused)?;
        Ok(decoder)
    }

    /// Whether a sample's first slice is of an IDR picture; reads NAL headers only.
    fn is_idr(&mut self, number: usize) -> Result<bool, Fault> {
        if let Some(known) = self.idr[number] {
            return Ok(known);
        }
        let sample = self.samples[number];
        let length_bytes = self.configuration.length_bytes;
        let mut at = 0u64;
        let mut found = false;
        for _ in 0..MAX_HEADERS {
            if at + length_bytes as u64 >= u64::from(sample.size) {
                break;
            }
            let mut head = [0; 5];
            let head = &mut head[..=length_bytes];
            self.file.read_exact_at(head, sample.offset + at).map_err(Fault::Read)?;
            match kind(&head[length_bytes..]) {
                IDR_SLICE => {
                    found = true;
                    break;
                }
                SLICE => break,
                _ => at += (length_bytes + nal_length(&head[..length_bytes])) as u64,
            }
        }
        self.idr[number] = Some(found);
        Ok(found)
    }

    /// Reads a sample into `annex_b` as OpenH264 takes it. False if it can be left out: not wanted, and no other picture
    /// refers to it.
    fn load(&mut self, number: usize, wanted: bool) -> Result<bool, Fault> {
        let sample = self.samples[number];
        if sample.size > MAX_SAMPLE_BYTES {
            return Err(self.undecodable(number, "it has more than 64 MiB"));
        }
        self.sample.resize(sample.size as usize, 0);
        self.file.read_exact_at(&mut self.sample, sample.offset).map_err(Fault::Read)?;
        self.annex_b.clear();
        let mut needed = wanted;
        let mut bytes = Bytes::new(&self.sample);
        while !bytes.is_empty() {
            let nal = bytes
                .take(self.configuration.length_bytes)
                .and_then(|length| bytes.take(nal_length(length)))
                .ok_or_else(|| self.undecodable(number, "its parts do not add up"))?;
            match kind(nal) {
                SLICE | IDR_SLICE => needed |= is_reference(nal),
                SPS if nal == self.configuration.original => continue,
                SPS => return Err(self.undecodable(number, "the coding of the pictures changes there")),
                PPS => needed = true,
                _ => continue,
            }
            self.annex_b.extend_from_slice(&START_CODE);
            self.annex_b.extend_from_slice(nal);
        }
        Ok(needed)
    }

    /// Decodes what `load` has read, the sample at the cursor, and hands over the picture if there is one.
    fn decode(
        &mut self,
        cursor: &mut Cursor,
        stream: &Stream,
        mut visit: impl FnMut(&Picture<'_>),
    ) -> Result<bool, Fault> {
        #[cfg(test)]
        {
            self.decoded += 1;
        }
        let decoded = cursor.decoder.decode_with_options(&self.annex_b, DecodeOptions::new());
        let Some(yuv) = decoded.map_err(|error| self.undecodable(cursor.next, &reason(&error)))? else {
            return Ok(false);
        };
        if yuv.dimensions() != stream.coded {
            return Err(self.undecodable(cursor.next, "its size is not the one its parameters give"));
        }
        let strides = yuv.strides();
        let picture =
            Picture::new(stream.coded, [yuv.y(), yuv.u(), yuv.v()], [strides.0, strides.1, strides.2])
                .ok_or_else(|| self.undecodable(cursor.next, "its planes are too small"))?;
        visit(&picture);
        Ok(true)
    }

    /// When a sample is shown, in seconds after the first picture.
    fn time(&self, number: usize) -> f64 {
        let ticks = self.samples[number].time.saturating_sub(self.first).max(0);
        ticks as f64 / f64::from(self.timescale)
    }

    fn undecodable(&self, number: usize, reason: &str) -> Fault {
        let time = self.time(number);
        Fault::damaged(format!("the picture at {time:.2} s cannot be decoded ({reason})"))
    }
}

/// What OpenH264 says, by the lowest bit of its state (`DECODING_STATE` in its `codec_app_def.h`).
fn reason(error: &openh264::Error) -> String {
    let text = error.to_string();
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    let state: u32 = text.split_once("Native:").and_then(|(_, rest)| digits(rest).parse().ok()).unwrap_or(0);
    match 1u32.checked_shl(state.trailing_zeros()) {
        Some(0x02) => "a picture that it refers to is missing".into(),
        Some(0x04) => "its bits make no sense".into(),
        Some(0x10) => "its parameters are missing".into(),
        _ => text,
    }
}

fn nal_length(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte))
}
