//! The index of an MP4 or QuickTime file: where each video sample lies and when it is shown (ISO/IEC 14496-12).
//!
//! Takes: a file of any content. Gives: one video track's samples. Next: [`super::h264`] decodes them.
//!
//! Our own reader, because it must hold against damaged files: every box is checked against its parent, every table against
//! the file's length, so that neither memory nor time exceed what the file's own size explains.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::bytes::Bytes;
use super::edits::{self, Clock};
use super::fault::Fault;
use super::fragments::{self, Defaults};
use super::resize::{Orientation, Turn};
use super::sample_table;

/// Four letters that name a box or a coding.
pub(super) type FourCc = [u8; 4];

/// One coded picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) offset: u64,
    pub(super) size: u32,
    /// Presentation time in ticks of the track after the start of the file; negative for what an edit list leaves out.
    pub(super) time: i64,
    pub(super) duration: u32,
    /// Whether decoding can start here.
    pub(super) sync: bool,
}

/// The video track of a file.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) coding: FourCc,
    /// The scheme that its samples are encrypted by, such as `cenc`.
    pub(super) encryption: Option<String>,
    /// The body of `avcC`, for `avc1`.
    pub(super) decoder_configuration: Vec<u8>,
    /// Matrix code and full-range flag of a `colr` box.
    pub(super) colour: Option<(u32, bool)>,
    pub(super) turn: Turn,
    /// Ticks a second.
    pub(super) timescale: u32,
    /// Samples in decoding order.
    pub(super) samples: Vec<Sample>,
    /// Samples of the index that lie wholly in the file, counted from the front.
    pub(super) readable: usize,
    /// Whether the file ends before its last sample.
    pub(super) cut: bool,
    /// Where presentation ends, if an edit list ends before the media.
    pub(super) shown_until: Option<i64>,
}

/// Largest index that is read into memory: that of a week of video takes some 100 MB.
const MAX_INDEX_BYTES: u64 = 1 << 30;
/// Most boxes at the top of a file; a fragment of a second each gives a day.
const MAX_TOP_LEVEL_BOXES: usize = 1 << 18;

/// A box inside a slice.
pub(super) struct Atom<'a> {
    pub(super) name: FourCc,
    pub(super) body: &'a [u8],
}

/// The boxes of a slice, in order; ends at the first that does not fit.
pub(super) fn atoms(data: &[u8]) -> impl Iterator<Item = Atom<'_>> {
    let mut bytes = Bytes::new(data);
    std::iter::from_fn(move || {
        let size = u64::from(bytes.u32()?);
        let name = bytes.take(4)?.try_into().ok()?;
        let body = match size {
            0 => bytes.rest().len() as u64,
            1 => bytes.u64()?.checked_sub(16)?,
            _ => size.checked_sub(8)?,
        };
        Some(Atom { name, body: bytes.take(usize::try_from(body).ok()?)? })
    })
}

/// The first box of a name.
pub(super) fn atom(data: &[u8], name: FourCc) -> Option<&[u8]> {
    atoms(data).find(|atom| atom.name == name).map(|atom| atom.body)
}

fn required(data: &[u8], name: FourCc) -> Result<&[u8], Fault> {
    atom(data, name).ok_or_else(|| {
        Fault::damaged(format!("its index lacks the box `{}`", String::from_utf8_lossy(&name)))
    })
}

/// Top-level boxes of a file that matter.
struct TopLevel {
    moov: Option<Vec<u8>>,
    /// Offset and body of each `moof`.
    moofs: Vec<(u64, Vec<u8>)>,
    /// Whether the last box reaches past the end of the file.
    cut: bool,
}

fn top_level(file: &File, length: u64) -> Result<TopLevel, Fault> {
    let mut found = TopLevel { moov: None, moofs: Vec::new(), cut: false };
    let mut index_bytes = 0u64;
    let mut at = 0u64;
    for _ in 0..MAX_TOP_LEVEL_BOXES {
        if length - at < 8 {
            found.cut |= length != at;
            return Ok(found);
        }
        let mut header = [0; 16];
        let header = &mut header[..usize::try_from(length - at).unwrap_or(16).min(16)];
        file.read_exact_at(header, at).map_err(Fault::Read)?;
        let mut bytes = Bytes::new(header);
        let (size, name) = (bytes.u32(), bytes.take(4));
        let (head, size) = match size {
            Some(0) => (8, length - at),
            Some(1) => (16, bytes.u64().unwrap_or(0)),
            size => (8, u64::from(size.unwrap_or(0))),
        };
        if size < head {
            return Err(Fault::damaged("a box of its index has an impossible size"));
        }
        let end = at.checked_add(size).filter(|end| *end <= length);
        let index = matches!(name, Some(b"moov" | b"moof"));
        let Some(end) = end else {
            found.cut = true;
            return Ok(found);
        };
        if index {
            index_bytes += size;
            if index_bytes > MAX_INDEX_BYTES {
                return Err(Fault::damaged("its index is larger than 1 GiB"));
            }
            let mut body = vec![0; (size - head) as usize];
            file.read_exact_at(&mut body, at + head).map_err(Fault::Read)?;
            match name {
                Some(b"moov") => found.moov = Some(body),
                _ => found.moofs.push((at, body)),
            }
        }
        at = end;
    }
    Err(Fault::damaged("it has more boxes than a day of video needs"))
}

/// Reads the index of a file and picks its video track: the first enabled one that has samples.
pub(super) fn read(file: &File, length: u64) -> Result<Track, Fault> {
    let top = top_level(file, length)?;
    let Some(moov) = &top.moov else {
        return Err(Fault::MissingIndex);
    };
    let movie = Movie::read(moov)?;
    let mut best: Option<Track> = None;
    let mut start: Option<f64> = None;
    for trak in atoms(moov).filter(|atom| atom.name == *b"trak") {
        match handler(trak.body) {
            Some(b"vide") => {}
            Some(b"soun") => {
                start = earlier(start, edits::sound_starts(trak.body, &movie, &top.moofs));
                continue;
            }
            _ => continue,
        }
        let track = video_track(trak.body, &movie, &top, length)?;
        start = earlier(start, edits::video_starts(&track));
        if best.as_ref().is_none_or(|best| best.samples.is_empty() && !track.samples.is_empty()) {
            best = Some(track);
        }
    }
    let mut track = best.ok_or(Fault::NoVideo)?;
    edits::count_from(&mut track, start.unwrap_or(0.0));
    Ok(track)
}

fn earlier(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::min)
}

/// What holds for all tracks of a file.
pub(super) struct Movie {
    /// Ticks a second of durations in edit lists; 0 where the file says nothing.
    pub(super) timescale: u32,
    orientation: Option<Orientation>,
    /// Per track id, for tracks in fragments.
    pub(super) defaults: Vec<(u32, Defaults)>,
}

impl Movie {
    fn read(moov: &[u8]) -> Result<Self, Fault> {
        let mvhd = required(moov, *b"mvhd")?;
        Ok(Self {
            timescale: timescale(mvhd).unwrap_or(0),
            orientation: movie_orientation(mvhd),
            defaults: atom(moov, *b"mvex").map(fragments::defaults).unwrap_or_default(),
        })
    }

    pub(super) fn fragments(&self, track: u32) -> Option<Defaults> {
        self.defaults.iter().find(|(id, _)| *id == track).map(|(_, defaults)| *defaults)
    }
}

fn handler(trak: &[u8]) -> Option<&[u8]> {
    atom(trak, *b"mdia").and_then(|mdia| atom(mdia, *b"hdlr")).and_then(|hdlr| hdlr.get(8..12))
}

/// Of the headers of a movie or of a track's media, which begin alike.
pub(super) fn timescale(header: &[u8]) -> Option<u32> {
    let mut bytes = Bytes::new(header);
    let (version, _) = bytes.version_and_flags()?;
    bytes.take(if version == 1 { 16 } else { 8 })?;
    bytes.u32()
}

fn video_track(trak: &[u8], movie: &Movie, top: &TopLevel, length: u64) -> Result<Track, Fault> {
    let mdia = required(trak, *b"mdia")?;
    let timescale = timescale(required(mdia, *b"mdhd")?)
        .filter(|scale| *scale > 0)
        .ok_or_else(|| Fault::damaged("its track has no time scale"))?;
    let tkhd = required(trak, *b"tkhd")?;
    let (id, orientation) = track_id(tkhd)
        .zip(track_orientation(tkhd))
        .ok_or_else(|| Fault::damaged("its track header is cut"))?;
    let stbl = required(required(mdia, *b"minf")?, *b"stbl")?;
    let entry = sample_entry(required(stbl, *b"stsd")?)
        .ok_or_else(|| Fault::damaged("its sample description is cut"))?;
    let mut samples = sample_table::read(stbl, length)?;
    let (defaults, in_fragments) = (movie.fragments(id), samples.is_empty());
    if let Some(defaults) = defaults {
        for (offset, moof) in &top.moofs {
            fragments::append(&mut samples, *offset, moof, id, defaults, length)?;
        }
    }
    let clock = Clock { movie: movie.timescale, track: timescale };
    let shown_until = edits::place_in_time(&mut samples, edits::of_track(trak, clock)?, in_fragments);
    let readable = samples
        .iter()
        .position(|sample| sample.offset.checked_add(u64::from(sample.size)).is_none_or(|end| end > length))
        .unwrap_or(samples.len());
    // A fragment whose own index is cut off leaves no samples behind that could be missed.
    let cut = readable < samples.len() || (top.cut && defaults.is_some());
    Ok(Track {
        coding: entry.coding,
        encryption: entry.encryption,
        decoder_configuration: entry.decoder_configuration,
        colour: entry.colour,
        turn: Turn::of(movie.orientation.map_or(orientation, |movie| orientation.then(movie))),
        timescale,
        samples,
        readable,
        cut,
        shown_until,
    })
}

pub(super) fn track_id(tkhd: &[u8]) -> Option<u32> {
    let mut bytes = Bytes::new(tkhd);
    let (version, _) = bytes.version_and_flags()?;
    bytes.take(if version == 1 { 16 } else { 8 })?;
    bytes.u32()
}

/// ISO/IEC 14496-12, section 8.3.2.
fn track_orientation(tkhd: &[u8]) -> Option<Orientation> {
    let mut bytes = Bytes::new(tkhd);
    let (version, _) = bytes.version_and_flags()?;
    bytes.take(if version == 1 { 32 } else { 20 } + 16)?;
    orientation(&mut bytes)
}

/// ISO/IEC 14496-12, section 8.2.2.
fn movie_orientation(mvhd: &[u8]) -> Option<Orientation> {
    let mut bytes = Bytes::new(mvhd);
    let (version, _) = bytes.version_and_flags()?;
    bytes.take(if version == 1 { 28 } else { 16 } + 16)?;
    orientation(&mut bytes)
}

fn orientation(bytes: &mut Bytes<'_>) -> Option<Orientation> {
    let matrix: Vec<i32> = (0..9).map_while(|_| bytes.i32()).collect();
    Orientation::of_matrix(&matrix)
}

struct SampleEntry {
    coding: FourCc,
    encryption: Option<String>,
    decoder_configuration: Vec<u8>,
    colour: Option<(u32, bool)>,
}

/// Bytes of a visual sample entry before its boxes (ISO/IEC 14496-12, section 12.1.3).
const VISUAL_SAMPLE_ENTRY: usize = 78;

fn sample_entry(stsd: &[u8]) -> Option<SampleEntry> {
    let mut bytes = Bytes::new(stsd);
    bytes.version_and_flags()?;
    let count = bytes.u32()?;
    let entry = atoms(bytes.rest()).next()?;
    let boxes = entry.body.get(VISUAL_SAMPLE_ENTRY..).unwrap_or_default();
    let colour = atom(boxes, *b"colr").and_then(|colr| {
        let mut bytes = Bytes::new(colr);
        let kind = bytes.take(4)?;
        bytes.take(4)?;
        let matrix = u32::from(bytes.u16()?);
        match kind {
            b"nclx" => Some((matrix, bytes.u8()? & 0x80 != 0)),
            b"nclc" => Some((matrix, false)),
            _ => None,
        }
    });
    // Several descriptions: the coding changes on the way, which only ffmpeg follows.
    let coding = if count == 1 { entry.name } else { *b"many" };
    let decoder_configuration = atom(boxes, *b"avcC").unwrap_or_default().to_vec();
    let encryption = encryption(entry.name, boxes);
    Some(SampleEntry { coding, encryption, decoder_configuration, colour })
}

/// The scheme that samples are encrypted by: Common Encryption and its kin (ISO/IEC 14496-12, section 8.12) or FairPlay.
fn encryption(coding: FourCc, boxes: &[u8]) -> Option<String> {
    let protection = atom(boxes, *b"sinf");
    if protection.is_none() && !matches!(&coding, b"encv" | b"drmi") {
        return None;
    }
    let scheme = protection.and_then(|sinf| atom(sinf, *b"schm")).and_then(|schm| schm.get(4..8));
    Some(String::from_utf8_lossy(scheme.unwrap_or(&coding)).into_owned())
}
