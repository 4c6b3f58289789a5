//! One run of `ffmpeg`: the pictures that it writes, each with what its filter `showinfo` says of it.

use std::ffi::OsString;
use std::path::PathBuf;

use super::fault::Fault;
use super::ffmpeg::Programs;
use super::ffprobe::{arguments, fraction, local};
use super::process::{TEXT_BLOCK, Watched, error_of};

/// Messages that are kept to explain a failure.
const KEPT_MESSAGES: usize = 20;
/// Parts of ffmpeg whose complaints are about what we ask it to write, not about the file.
const OUTPUT: [&str; 5] = ["rawvideo", "null", "swscaler", "out", "wrapped_avframe"];

/// What ffmpeg says of files whose end is missing.
const CUT_SHORT: [&str; 3] = ["partial file", "File ended prematurely", "Truncating packet"];
/// What decoders say of pictures that refer to some which are not there: behind a seek, and where recordings are strung
/// together or refreshed bit by bit. The pictures themselves are whole.
const REFERENCES: [&str; 5] = [
    "co located POCs unavailable",
    "Missing reference picture",
    "mmco: unref short failure",
    "reference picture missing during reorder",
    "number of reference frames",
];

/// Whether a message says that the end of the file is missing.
pub(super) fn is_cut_short(line: &str) -> bool {
    CUT_SHORT.iter().any(|sign| line.contains(sign))
}

/// Where a run starts to decode, and in which clock its times are, always in ticks of the stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Start {
    /// At the first packet, in the container's clock.
    Beginning,
    /// At the first packet, in a clock that ffmpeg starts at 0 and mends where the container's leaps.
    Mended,
    /// Where the container leads when asked for a time in seconds of its own clock, which is also that of the times.
    At(f64),
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Pictures are written.
    Show,
    /// Nothing is written: only what is said of the pictures counts.
    Count,
}

/// What is known of a picture that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    /// How many came before it in this run.
    pub(super) number: usize,
    /// In ticks of the stream; the clock depends on the start.
    pub(super) time: Option<i64>,
    /// Whether it refers to no other.
    pub(super) key: bool,
    /// Of all its pixels.
    pub(super) checksum: u32,
}

/// The stream that is decoded, and how.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) programs: Programs,
    /// Number of the stream in the file.
    pub(super) stream: u64,
    /// Length of a tick of its clock in seconds, as a fraction.
    pub(super) tick: (u32, u32),
    pub(super) coded: (usize, usize),
}

/// A running `ffmpeg`.
pub(super) struct Pictures {
    child: Watched,
    /// Bytes of a picture; 0 where none is written.
    block: usize,
    stream_tick: (u32, u32),
    /// The clock of `showinfo`, if it differs from the stream's.
    tick: Option<(u32, u32)>,
    /// Pictures a second, as a fraction, if they are regular.
    rate: Option<(u32, u32)>,
    /// Pictures that came.
    count: usize,
    /// The first error, and how many pictures had come by then.
    error: Option<(usize, String)>,
    pub(super) messages: Vec<String>,
}

impl Source {
    fn arguments(&self, start: Start, purpose: Purpose) -> Vec<OsString> {
        let (width, height) = self.coded;
        let mut list = arguments(&["-nostdin", "-hide_banner", "-nostats", "-v", "level+info"]);
        list.extend(arguments(&["-threads", "2", "-protocol_whitelist", "file,pipe", "-noautorotate"]));
        if start != Start::Mended {
            list.push("-copyts".into());
        }
        if let Start::At(seconds) = start {
            let seconds = format!("{seconds:.6}");
            list.extend(arguments(&["-noaccurate_seek", "-seek_timestamp", "1", "-ss", &seconds]));
        }
        list.extend(["-i".into(), local(&self.path)]);
        let filter = format!("scale=w={width}:h={height}:out_range=tv,format=yuv420p,showinfo");
        list.extend(arguments(&["-map", &format!("0:{}", self.stream), "-an", "-sn", "-dn", "-vf", &filter]));
        list.extend(arguments(&[self.programs.every_picture, "passthrough"]));
        list.extend(arguments(match purpose {
            Purpose::Show => &["-f", "rawvideo", "pipe:1"],
            Purpose::Count => &["-f", "null", "-"],
        }));
        list
    }
}

impl Pictures {
    pub(super) fn start(source: &Source, start: Start, purpose: Purpose) -> Result<Self, Fault> {
        let (width, height) = source.coded;
        let block = match purpose {
            Purpose::Show => width * height + 2 * width.div_ceil(2) * height.div_ceil(2),
            Purpose::Count => 0,
        };
        Ok(Self {
            child: Watched::start(
                "ffmpeg",
                &source.arguments(start, purpose),
                if block > 0 { block } else { TEXT_BLOCK },
            )?,
            block,
            stream_tick: source.tick,
            tick: None,
            rate: None,
            count: 0,
            error: None,
            messages: Vec::new(),
        })
    }

    /// The next picture and its planes, Y, Cb and Cr; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(Shown, Vec<u8>)>, Fault> {
        let block = if self.block > 0 { self.child.block()?.unwrap_or_default() } else { Vec::new() };
        if block.len() < self.block {
            // Its last words say why it ended.
            while let Some(line) = self.child.message()? {
                self.hear(&line);
            }
            return Ok(None);
        }
        while let Some(line) = self.child.message()? {
            if let Some(shown) = self.hear(&line) {
                let number = self.count;
                self.count += 1;
                return Ok(Some((Shown { number, ..shown }, block)));
            }
        }
        Ok(None)
    }

    /// What is wrong with the pictures since the start, or since errors were forgotten.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_ref().map(|(_, text)| text.as_str())
    }

    /// Pictures that came since the first error; 0 if there was none.
    pub(super) fn since_error(&self) -> usize {
        self.error.as_ref().map_or(0, |(count, _)| self.count - count)
    }

    pub(super) fn forget_errors(&mut self) {
        self.error = None;
    }

    /// How long a picture is shown where pictures are regular, in ticks of the stream.
    pub(super) fn frame_length(&self) -> Option<i64> {
        self.rate.map(|(above, below)| convert(1, (below, above), self.stream_tick))
    }

    fn hear(&mut self, line: &str) -> Option<Shown> {
        let info = line.split_once("Parsed_showinfo").and_then(|(_, rest)| rest.split_once("[info] "));
        let Some((_, info)) = info else {
            if error_of(line).is_some() && self.messages.len() < KEPT_MESSAGES {
                self.messages.push(line.to_owned());
            }
            if let Some(text) = damage(line).filter(|_| self.error.is_none()) {
                self.error = Some((self.count, text));
            }
            return None;
        };
        if let Some(rest) = info.strip_prefix("config in time_base: ") {
            let (tick, rate) = rest.split_once(", frame_rate: ").unwrap_or((rest, ""));
            self.tick = fraction(tick.split(',').next()?).filter(|tick| *tick != self.stream_tick);
            self.rate = fraction(rate);
            return None;
        }
        let mut shown = picture(info)?;
        if let Some(tick) = self.tick {
            shown.time = shown.time.map(|time| convert(time, tick, self.stream_tick));
        }
        Some(shown)
    }
}

/// The text of a message that tells of damage in pictures.
fn damage(line: &str) -> Option<String> {
    let (part, text) = error_of(line)?;
    let of_output = part.is_some_and(|part| OUTPUT.iter().any(|output| part.starts_with(output)));
    let harmless = of_output || is_cut_short(text) || REFERENCES.iter().any(|sign| text.starts_with(sign));
    (!harmless).then(|| text.trim_end_matches('.').chars().take(300).collect())
}

/// Of a line such as `n:   0 pts:    512 pts_time:0.0333 ... iskey:1 type:I checksum:BA8101FF ...`.
fn picture(info: &str) -> Option<Shown> {
    let (_, rest) = info.strip_prefix("n:")?.split_once(" pts:")?;
    let field = |name: &str| rest.split_once(name).and_then(|(_, rest)| rest.split_whitespace().next());
    Some(Shown {
        number: 0,
        time: rest.split_whitespace().next()?.parse().ok(),
        key: field(" iskey:") == Some("1"),
        checksum: field(" checksum:").and_then(|text| u32::from_str_radix(text, 16).ok()).unwrap_or(0),
    })
}

fn convert(time: i64, from: (u32, u32), to: (u32, u32)) -> i64 {
    let above = i128::from(time) * i128::from(from.0) * i128::from(to.1);
    let below = i128::from(from.1) * i128::from(to.0);
    i64::try_from((above * 2 + below).div_euclid(below * 2)).unwrap_or(i64::MAX)
}
