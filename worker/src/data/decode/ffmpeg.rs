//! The programs `ffprobe` and `ffmpeg` as a decoder for everything that the embedded one leaves.
//!
//! Takes: a path. Gives: pictures by presentation position. Next: `super::resize`.
//!
//! ffmpeg only decodes: it writes planes of 8-bit 4:2:0 in limited range as coded, and the filter `showinfo` says when each is
//! shown. Only local files are opened, whatever a playlist asks for.

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;

use super::colour::{Matrix, Range};
use super::container::Container;
use super::fault::Fault;
use super::ffprobe::{self, Description};
use super::pictures::{Pictures, Purpose, Source, Start, is_cut_short};
use super::process::{TEXT_BLOCK, Watched, error_of, real_error};
use super::sampling::Timeline;
use super::seek::{self, Index};
use super::{Picture, Stream, Visit, cut};

/// Positions at the very end that may have no picture of their own: what decoders hold back or hide.
const HELD_AT_END: usize = 4;

/// Pictures that ffmpeg reads before it gives the first of them: those that are reordered, and one a thread.
const READ_AHEAD: usize = 18;

/// So many key pictures ahead, what is broken is broken: pictures that are refreshed bit by bit are whole after two.
const SURE_LEAD: usize = 8;

/// That both programs are on PATH, and what differs between their versions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Programs {
    /// Option that keeps every picture and no other: `-fps_mode` since 5.1, `-vsync` before.
    pub(super) every_picture: &'static str,
}

impl Programs {
    /// Looks once a process.
    pub(super) fn find() -> Option<Self> {
        static FOUND: OnceLock<Option<Programs>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            version("ffprobe")?;
            let version = version("ffmpeg")?;
            let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
            let old = match (numbers.next().flatten(), numbers.next().flatten()) {
                (Some(major), minor) => (major, minor.unwrap_or(0)) < (5, 1),
                // A build of the development branch.
                (None, _) => false,
            };
            Some(Self { every_picture: if old { "-vsync" } else { "-fps_mode" } })
        })
    }
}

/// What a program says its version is, such as `5.1.9-0+deb12u1`.
fn version(program: &'static str) -> Option<String> {
    let (text, _) =
        Watched::start(program, &["-version".into()], TEXT_BLOCK).ok()?.finish(TEXT_BLOCK).ok()?;
    text.split_whitespace().nth(2).map(|word| word.trim_start_matches('n').to_owned())
}

/// Decodes one stream of one file; starts a process for each request, and more where the first comes in too late.
pub(in crate::data) struct Decoder {
    source: Source,
    index: Index,
    /// From this position on, errors are those of the part that is missing behind the last picture: ffmpeg reads ahead.
    broken_from: usize,
    /// How far before the wanted picture decoding must start in this file, as learned.
    lead: usize,
}

pub(super) fn open(
    path: &Path,
    programs: Programs,
    container: Container,
    allow_truncated: bool,
) -> Result<(Stream, Decoder), Fault> {
    let described = ffprobe::describe(path)?;
    let (packets, messages) = ffprobe::packets(path, described.index)?;
    let file = File::open(path).map_err(Fault::Open)?;
    let length = file.metadata().map_err(Fault::Open)?.len();
    let cut = cut::is_cut(&file, length, container)? || messages.iter().any(|line| is_cut_short(line));
    if cut && !allow_truncated {
        return Err(Fault::Truncated { readable: packets.len() as u64 });
    }
    let source = Source {
        path: path.to_owned(),
        programs,
        stream: described.index,
        tick: described.tick,
        coded: described.coded,
    };
    let (timeline, index) = match seek::of_packets(&packets, &described, container) {
        Some(known) => known,
        None => whole(&source, &described, &packets)?,
    };
    damaged_at_start(&described, &packets)?;
    let mut stream = Stream {
        coded: described.coded,
        turn: described.turn,
        matrix: described.matrix.unwrap_or_else(|| Matrix::usual(described.coded.1)),
        range: Range::Limited,
        timeline,
    };
    let mut decoder = Decoder { source, index, broken_from: usize::MAX, lead: 0 };
    if cut {
        decoder.drop_broken_end(&mut stream)?;
    }
    Ok((stream, decoder))
}

/// Times of pictures where packets do not tell them all: the whole file is decoded once.
fn whole(
    source: &Source,
    described: &Description,
    packets: &[ffprobe::Packet],
) -> Result<(Timeline, Index), Fault> {
    let mut pictures = Pictures::start(source, Start::Mended, Purpose::Count)?;
    let mut shown = Vec::new();
    while let Some((info, _)) = pictures.next()? {
        shown.push(info);
    }
    seek::of_pictures(shown, packets, described, pictures.frame_length())
        .ok_or_else(|| Fault::Ffmpeg(real_error(&pictures.messages, "none of its pictures decodes")))
}

/// A file whose first packet can be decoded by itself, but was not.
fn damaged_at_start(described: &Description, packets: &[ffprobe::Packet]) -> Result<(), Fault> {
    let late = packets.first().is_some_and(|packet| {
        packet.key && packet.time.is_some_and(|time| described.first.is_none_or(|first| first > time))
    });
    if late && described.errors.iter().any(|line| error_of(line).is_some()) {
        let message = real_error(&described.errors, "it gives no picture");
        return Err(Fault::damaged(format!("the picture at 0.00 s cannot be decoded ({message})")));
    }
    Ok(())
}

/// How one run of ffmpeg ended.
enum Run {
    /// Every wanted picture came.
    Whole,
    /// A picture is missing or not sure to be right; from further ahead it may come.
    Missed(Fault),
}

impl Decoder {
    pub(super) fn visit(
        &mut self,
        stream: &Stream,
        wanted: &[usize],
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        let Some(&first) = wanted.first() else {
            return Ok(());
        };
        let mut lead = self.lead;
        loop {
            let start = self.index.start(&stream.timeline, first, lead);
            match self.run(stream, wanted, start, visit)? {
                Run::Whole => {
                    self.lead = lead;
                    return Ok(());
                }
                Run::Missed(fault) if !matches!(start, Start::At(_)) => return Err(fault),
                Run::Missed(fault @ Fault::Damaged(_)) if lead >= SURE_LEAD => return Err(fault),
                Run::Missed(_) => lead = (lead * 2).max(1),
            }
        }
    }

    fn run(
        &self,
        stream: &Stream,
        wanted: &[usize],
        start: Start,
        visit: &mut Visit<'_>,
    ) -> Result<Run, Fault> {
        let mut pictures = Pictures::start(&self.source, start, Purpose::Show)?;
        // Behind a seek, pictures may refer to some that were never read, up to the first that refers to none.
        let mut trusted = !matches!(start, Start::At(_));
        let mut held: Option<Vec<u8>> = None;
        let mut wanted = wanted.iter().copied().peekable();
        while let Some(&next) = wanted.peek() {
            let Some((info, block)) = pictures.next()? else {
                let held =
                    held.filter(|_| self.is_sound(&pictures, next) && next + HELD_AT_END >= stream.frames());
                let Some(block) = held else {
                    return Ok(Run::Missed(missing(stream, next, &pictures)));
                };
                wanted.by_ref().for_each(|position| show(stream, &block, position, visit));
                return Ok(Run::Whole);
            };
            if info.key && (!trusted || pictures.since_error() > READ_AHEAD) {
                trusted = true;
                pictures.forget_errors();
            }
            if info.number == 0 && !self.index.starts_with_key() {
                pictures.forget_errors();
            }
            let Some(position) = self.index.position(&stream.timeline, start, &info).filter(|_| trusted)
            else {
                continue;
            };
            // A packet without a picture of its own: the one before stays, as in ffmpeg's filter `fps`.
            while let Some(hidden) = wanted.next_if(|next| *next < position) {
                match &held {
                    Some(block) if !self.index.is_seen() && self.is_sound(&pictures, position) => {
                        show(stream, block, hidden, visit);
                    }
                    _ => return Ok(Run::Missed(missing(stream, hidden, &pictures))),
                }
            }
            if wanted.next_if_eq(&position).is_some() {
                if !self.is_sound(&pictures, position) {
                    return Ok(Run::Missed(missing(stream, position, &pictures)));
                }
                show(stream, &block, position, visit);
            }
            held = Some(block);
        }
        Ok(Run::Whole)
    }

    /// Whether nothing was wrong with the pictures up to a position.
    fn is_sound(&self, pictures: &Pictures, position: usize) -> bool {
        pictures.error().is_none() || position >= self.broken_from
    }

    /// Of a file that is cut: leaves out what comes last and does not decode.
    fn drop_broken_end(&mut self, stream: &mut Stream) -> Result<(), Fault> {
        let last = stream.frames().saturating_sub(1);
        let start = self.index.start(&stream.timeline, last, 2);
        let mut pictures = Pictures::start(&self.source, start, Purpose::Count)?;
        let (mut trusted, mut whole) = (!matches!(start, Start::At(_)), 0);
        while let Some((info, _)) = pictures.next()? {
            if !trusted && info.key {
                trusted = true;
                pictures.forget_errors();
            }
            if trusted && let Some(position) = self.index.position(&stream.timeline, start, &info) {
                whole = whole.max(position + 1);
            }
        }
        // What ffmpeg makes up for a part that is missing belongs to the last packet.
        if pictures.error().is_some() {
            whole = whole.min(self.index.last_packet());
        }
        if whole == 0 {
            return Err(Fault::Truncated { readable: 0 });
        }
        let timeline = &mut stream.timeline;
        if whole < timeline.times.len() {
            timeline.end = timeline.times[whole];
            timeline.times.truncate(whole);
        }
        self.broken_from = whole.saturating_sub(READ_AHEAD);
        Ok(())
    }
}

fn show(stream: &Stream, block: &[u8], position: usize, visit: &mut Visit<'_>) {
    let (width, height) = stream.coded;
    let (y, rest) = block.split_at(width * height);
    let half = width.div_ceil(2);
    let (cb, cr) = rest.split_at(half * height.div_ceil(2));
    if let Some(picture) = Picture::new(stream.coded, [y, cb, cr], [width, half, half]) {
        visit(position, &picture);
    }
}

/// Why a picture is not there.
fn missing(stream: &Stream, position: usize, pictures: &Pictures) -> Fault {
    let time = stream.timeline.second(position);
    match pictures.error() {
        Some(message) => Fault::damaged(format!("the picture at {time:.2} s cannot be decoded ({message})")),
        None => Fault::Ffmpeg(format!("it gives no picture at {time:.2} s")),
    }
}
