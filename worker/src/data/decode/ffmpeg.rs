//! The programs `ffprobe` and `ffmpeg` as a decoder for everything that the embedded one leaves.
//!
//! Takes: a path. Gives: pictures by presentation position. Next: [`super::resize`].
//!
//! ffmpeg only decodes: it writes planes of 8-bit 4:2:0 in limited range as coded, and the filter `showinfo` says when each is
//! shown. Only local files are opened, whatever a playlist asks for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use super::colour::{Matrix, Range};
use super::fault::Fault;
use super::process::{TEXT_BLOCK, Watched, last_message};
use super::resize::Turn;
use super::sampling::Timeline;
use super::{MAX_PIXELS, Picture, Stream, Visit};

/// Most bytes of text that `ffprobe` may say: some 40 a picture, for two days of video.
const MAX_PROBE_BYTES: usize = 1 << 30;
/// Messages that are kept to explain a failure.
const KEPT_MESSAGES: usize = 20;
/// What ffmpeg says of files whose end is missing.
const CUT_SHORT: [&str; 4] =
    ["partial file", "File ended prematurely", "Truncating packet", "Packet corrupt"];

/// That both programs are on PATH, and what differs between their versions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Programs {
    /// Option that keeps every picture and no other: `-fps_mode` since 5.1, `-vsync` before.
    every_picture: &'static str,
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

/// Decodes one stream of one file; starts a process for each request.
pub(in crate::data) struct Decoder {
    path: PathBuf,
    programs: Programs,
    /// Position of the stream in the file.
    stream: u64,
    /// Time 0 in the stream's clock.
    origin: i64,
}

/// `file:` in front keeps ffmpeg from reading a name as an option or a protocol.
fn local(path: &Path) -> OsString {
    let mut argument = OsString::from("file:");
    argument.push(path);
    argument
}

fn arguments(list: &[&str]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}

pub(super) fn open(
    path: &Path,
    programs: Programs,
    allow_truncated: bool,
) -> Result<(Stream, Decoder), Fault> {
    let (description, _) =
        probe(path, &["-show_streams", "-show_format", "-select_streams", "V", "-of", "json"])?;
    let description: Value = serde_json::from_str(&description)
        .map_err(|error| Fault::Ffmpeg(format!("`ffprobe` answers with broken JSON: {error}")))?;
    let stream = description["streams"].get(0).ok_or(Fault::NoVideo)?;
    let index = stream["index"].as_u64().unwrap_or(0);
    let size = |key: &str| stream[key].as_u64().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    let coded = (size("width"), size("height"));
    if coded.0.saturating_mul(coded.1) > MAX_PIXELS {
        return Err(Fault::TooLarge { width: coded.0, height: coded.1, limit: MAX_PIXELS });
    }
    let tick = stream["time_base"]
        .as_str()
        .and_then(fraction)
        .ok_or_else(|| Fault::Ffmpeg("`ffprobe` gives no time base".into()))?;
    let mut timeline = timeline(path, index, tick, allow_truncated)?;
    let start = description["format"]["start_time"].as_str().and_then(|text| text.parse().ok());
    let origin = origin(&timeline, start.unwrap_or(0.0));
    timeline.times.iter_mut().for_each(|time| *time = time.saturating_sub(origin));
    timeline.end = timeline.end.saturating_sub(origin);
    let stream = Stream {
        coded,
        turn: turn(stream),
        matrix: matrix(stream).unwrap_or_else(|| Matrix::usual(coded.1)),
        range: Range::Limited,
        timeline,
    };
    Ok((stream, Decoder { path: path.to_owned(), programs, stream: index, origin }))
}

/// Time 0 in the stream's clock: where the container starts, as ffmpeg counts.
fn origin(timeline: &Timeline, start: f64) -> i64 {
    let ticks = start * f64::from(timeline.tick.1) / f64::from(timeline.tick.0);
    match timeline.times.first() {
        // ffprobe rounds to microseconds; where the pictures start the container, they say it exactly.
        Some(&first) if (first as f64 - ticks).abs() <= 1.0 => first,
        _ => ticks.round() as i64,
    }
}

fn probe(path: &Path, wanted: &[&str]) -> Result<(String, Vec<String>), Fault> {
    let mut list = arguments(&["-v", "error", "-protocol_whitelist", "file"]);
    list.extend(arguments(wanted));
    list.extend(["-i".into(), local(path)]);
    Watched::start("ffprobe", &list, TEXT_BLOCK)?.finish(MAX_PROBE_BYTES).map_err(|fault| match fault {
        Fault::Ffmpeg(message) => {
            let name = local(path).to_string_lossy().into_owned();
            Fault::Ffmpeg(message.trim_start_matches(&name).trim_start_matches(": ").to_owned())
        }
        other => other,
    })
}

/// Times of all pictures from the packets, or, where those have none, from decoding the whole file once.
fn timeline(path: &Path, stream: u64, tick: (u32, u32), allow_truncated: bool) -> Result<Timeline, Fault> {
    let select = stream.to_string();
    let packets =
        ["-select_streams", &select, "-show_entries", "packet=pts,duration,flags", "-of", "compact=p=0"];
    let (text, messages) = probe(path, &packets)?;
    let mut pictures = times(&text, "pts=", "duration=");
    if pictures.is_none() {
        let frames = [
            "-select_streams",
            &select,
            "-show_entries",
            "frame=best_effort_timestamp,pkt_duration,duration",
            "-of",
            "compact=p=0",
        ];
        pictures = times(&probe(path, &frames)?.0, "best_effort_timestamp=", "duration=");
    }
    let mut pictures = pictures.ok_or_else(|| Fault::Ffmpeg("its pictures have no times".into()))?;
    pictures.sort_unstable();
    pictures.dedup_by_key(|(time, _)| *time);
    let cut = messages.iter().any(|line| CUT_SHORT.iter().any(|sign| line.contains(sign)));
    if cut && !allow_truncated {
        return Err(Fault::Truncated { readable: pictures.len() as u64 });
    }
    let (times, durations): (Vec<i64>, Vec<i64>) = pictures.into_iter().unzip();
    // The last picture is shown as long as it says, or else as long as the one before it.
    let before = times.iter().rev().nth(1).zip(times.last()).map_or(0, |(before, last)| last - before);
    let last = durations.last().copied().filter(|duration| *duration > 0).unwrap_or(before);
    let end = times.last().map_or(0, |time| time.saturating_add(last));
    Ok(Timeline { tick, times, end })
}

/// (time, duration) of each line that is shown; `None` if one has no time.
fn times(text: &str, time: &str, duration: &str) -> Option<Vec<(i64, i64)>> {
    let mut pictures = Vec::new();
    for line in text.lines().filter(|line| line.contains(time)) {
        let field = |name: &str| line.split('|').find_map(|field| field.strip_prefix(name));
        if field("flags=").is_some_and(|flags| flags.contains('D')) {
            continue;
        }
        let length = field(duration).or_else(|| field("pkt_duration=")).and_then(|text| text.parse().ok());
        pictures.push((field(time)?.parse().ok()?, length.unwrap_or(0)));
    }
    (!pictures.is_empty()).then_some(pictures)
}

/// `1/15360` as its two numbers, both positive.
fn fraction(text: &str) -> Option<(u32, u32)> {
    let (above, below) = text.split_once('/')?;
    let pair = (above.trim().parse().ok()?, below.trim().parse().ok()?);
    (pair.0 > 0 && pair.1 > 0).then_some(pair)
}

fn turn(stream: &Value) -> Turn {
    let counter_clockwise = stream["side_data_list"]
        .as_array()
        .and_then(|list| list.iter().find_map(|data| data["rotation"].as_f64()))
        .unwrap_or(0.0);
    Turn::from_degrees(-(counter_clockwise.round() as i64))
}

fn matrix(stream: &Value) -> Option<Matrix> {
    match stream["color_space"].as_str()? {
        "bt709" | "smpte240m" => Some(Matrix::Bt709),
        "bt470bg" | "smpte170m" | "fcc" | "gbr" => Some(Matrix::Bt601),
        "bt2020nc" | "bt2020c" => Some(Matrix::Bt2020),
        _ => None,
    }
}

impl Decoder {
    pub(super) fn visit(
        &mut self,
        stream: &Stream,
        wanted: &[usize],
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        let (Some(&first), Some(&last)) = (wanted.first(), wanted.last()) else {
            return Ok(());
        };
        let (width, height) = stream.coded;
        let (luma, chroma) = (width * height, width.div_ceil(2) * height.div_ceil(2));
        let mut child = Watched::start("ffmpeg", &self.arguments(stream, first), luma + 2 * chroma)?;
        let mut messages = Messages::default();
        let mut wanted = wanted.iter().copied().peekable();
        while let Some(&next) = wanted.peek() {
            let block = child.block()?.filter(|block| block.len() == luma + 2 * chroma);
            let (Some(block), Some(time)) = (block, messages.time(&mut child, stream.timeline.tick)?) else {
                return Err(ended_early(stream, next, &messages));
            };
            let Ok(position) = stream.timeline.times.binary_search(&time.saturating_sub(self.origin)) else {
                continue;
            };
            if position > next {
                return Err(ended_early(stream, next, &messages));
            }
            if position < next {
                continue;
            }
            wanted.next();
            let (y, rest) = block.split_at(luma);
            let (cb, cr) = rest.split_at(chroma);
            let half = width.div_ceil(2);
            if let Some(picture) = Picture::new(stream.coded, [y, cb, cr], [width, half, half]) {
                visit(position, &picture);
            }
            if position == last {
                break;
            }
        }
        Ok(())
    }

    fn arguments(&self, stream: &Stream, first: usize) -> Vec<OsString> {
        let (width, height) = stream.coded;
        let mut list = arguments(&["-nostdin", "-hide_banner", "-nostats", "-v", "info", "-threads", "2"]);
        list.extend(arguments(&["-protocol_whitelist", "file,pipe", "-copyts", "-noautorotate"]));
        if first > 0 {
            // To the picture that decoding can start at, at or before this time; what comes before is not wanted.
            let seconds = (stream.timeline.times[first] + self.origin) as f64
                * f64::from(stream.timeline.tick.0)
                / f64::from(stream.timeline.tick.1);
            list.extend(arguments(&[
                "-noaccurate_seek",
                "-seek_timestamp",
                "1",
                "-ss",
                &format!("{seconds:.6}"),
            ]));
        }
        list.extend(["-i".into(), local(&self.path)]);
        let filter = format!("scale=w={width}:h={height}:out_range=tv,format=yuv420p,showinfo=checksum=0");
        list.extend(arguments(&["-map", &format!("0:{}", self.stream), "-an", "-sn", "-dn", "-vf", &filter]));
        list.extend(arguments(&[self.programs.every_picture, "passthrough", "-f", "rawvideo", "pipe:1"]));
        list
    }
}

fn ended_early(stream: &Stream, position: usize, messages: &Messages) -> Fault {
    let tick = stream.timeline.tick;
    let time = stream.timeline.times[position] as f64 * f64::from(tick.0) / f64::from(tick.1);
    let message = last_message(&messages.kept, "it ended early");
    Fault::Ffmpeg(format!("it gives no picture at {time:.2} s ({message})"))
}

/// What `showinfo` and the rest of ffmpeg say while pictures come.
#[derive(Default)]
struct Messages {
    /// The clock of `showinfo`, if it differs from the stream's.
    tick: Option<(u32, u32)>,
    kept: Vec<String>,
}

impl Messages {
    /// When the next picture is shown, in ticks of the stream.
    fn time(&mut self, child: &mut Watched, stream_tick: (u32, u32)) -> Result<Option<i64>, Fault> {
        while let Some(line) = child.message()? {
            let Some((_, info)) =
                line.split_once("Parsed_showinfo").and_then(|(_, rest)| rest.split_once("] "))
            else {
                if self.kept.len() < KEPT_MESSAGES {
                    self.kept.push(line);
                }
                continue;
            };
            if let Some(rest) = info.strip_prefix("config in time_base: ") {
                self.tick = rest.split(',').next().and_then(fraction).filter(|tick| *tick != stream_tick);
            } else if let Some(time) = picture_time(info) {
                return Ok(Some(self.tick.map_or(time, |tick| convert(time, tick, stream_tick))));
            }
        }
        Ok(None)
    }
}

/// Of a line such as `n:   0 pts:    512 pts_time:0.0333 ...`.
fn picture_time(info: &str) -> Option<i64> {
    info.strip_prefix("n:")?.split_once(" pts:")?.1.split_whitespace().next()?.parse().ok()
}

fn convert(time: i64, from: (u32, u32), to: (u32, u32)) -> i64 {
    let above = i128::from(time) * i128::from(from.0) * i128::from(to.1);
    let below = i128::from(from.1) * i128::from(to.0);
    i64::try_from((above * 2 + below).div_euclid(below * 2)).unwrap_or(i64::MAX)
}
