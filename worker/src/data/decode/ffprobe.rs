//! What `ffprobe` says of a file: its video stream, and its packets with their times.

use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;

use super::MAX_PIXELS;
use super::colour::Matrix;
use super::fault::Fault;
use super::process::{TEXT_BLOCK, Watched, real_error};
use super::resize::{Orientation, Turn};

/// Most bytes of text that `ffprobe` may say: some 60 a packet, for two days of video.
const MAX_PROBE_BYTES: usize = 1 << 30;
/// Packets that are decoded to see where pictures start and how they are turned: more than any coding reorders.
const FIRST_PACKETS: &str = "%+#32";

/// How far to look for the first key picture: a minute, which few codings exceed, and as many bytes as that has at most.
const FAR: [&str; 4] = ["-analyzeduration", "60M", "-probesize", "256M"];

/// The video stream of a file.
#[derive(Debug)]
pub(super) struct Description {
    /// Its number in the file.
    pub(super) index: u64,
    pub(super) coded: (usize, usize),
    /// Length of a tick of its clock in seconds, as a fraction.
    pub(super) tick: (u32, u32),
    pub(super) turn: Turn,
    pub(super) matrix: Option<Matrix>,
    /// Where the file starts, in seconds of the stream's clock.
    pub(super) start: f64,
    /// When the first picture that decodes is shown, in ticks; `None` if none of the first packets gives one with a time.
    pub(super) first: Option<i64>,
    /// What went wrong with the first packets.
    pub(super) errors: Vec<String>,
}

/// One coded picture, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet {
    /// When it is shown, in ticks.
    pub(super) time: Option<i64>,
    /// When it is decoded, in ticks.
    pub(super) decoded: Option<i64>,
    /// How long it is shown, in ticks; 0 where the file does not say.
    pub(super) length: i64,
    /// Whether decoding can start here.
    pub(super) key: bool,
}

/// `file:` in front keeps ffmpeg from reading a name as an option or a protocol.
pub(super) fn local(path: &Path) -> OsString {
    let mut argument = OsString::from("file:");
    argument.push(path);
    argument
}

pub(super) fn arguments(list: &[&str]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}

fn probe(path: &Path, wanted: &[&str]) -> Result<(String, Vec<String>), Fault> {
    let mut list = arguments(&["-v", "level+error", "-protocol_whitelist", "file"]);
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

/// The first video stream that is no cover picture. One that begins long before its first key picture is searched further.
pub(super) fn describe(path: &Path) -> Result<Description, Fault> {
    let described = describe_after(path, &[])?;
    if described.coded != (0, 0) {
        return Ok(described);
    }
    describe_after(path, &FAR)
}

fn describe_after(path: &Path, search: &[&str]) -> Result<Description, Fault> {
    let wanted = ["-show_streams", "-show_format", "-show_frames", "-read_intervals", FIRST_PACKETS];
    let (text, errors) =
        probe(path, &[search, &wanted, ["-select_streams", "V", "-of", "json"].as_slice()].concat())?;
    let text: Value = serde_json::from_str(&text)
        .map_err(|error| Fault::Ffmpeg(format!("`ffprobe` answers with broken JSON: {error}")))?;
    let stream = text["streams"].get(0).ok_or(Fault::NoVideo)?;
    let index = stream["index"].as_u64().unwrap_or(0);
    let size = |key: &str| stream[key].as_u64().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    let coded = (size("width"), size("height"));
    if coded.0.saturating_mul(coded.1) > MAX_PIXELS {
        return Err(Fault::TooLarge { width: coded.0, height: coded.1, limit: MAX_PIXELS });
    }
    let tick = stream["time_base"]
        .as_str()
        .and_then(fraction)
        .ok_or_else(|| Fault::Ffmpeg(real_error(&errors, "`ffprobe` gives no time base")))?;
    let frames = text["frames"].as_array().map(Vec::as_slice).unwrap_or_default();
    let pictures = || frames.iter().filter(|frame| frame["stream_index"].as_u64() == Some(index));
    // What a picture says of itself comes before what the container says, as ffmpeg has it.
    let orientation = pictures().take(1).chain([stream]).find_map(orientation);
    Ok(Description {
        index,
        coded,
        tick,
        turn: orientation.map_or(Turn::None, Turn::of),
        matrix: matrix(stream),
        start: text["format"]["start_time"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0.0),
        first: pictures().find_map(|frame| frame["best_effort_timestamp"].as_i64()),
        errors,
    })
}

/// All packets of a stream in the file's order, and what `ffprobe` complains about.
pub(super) fn packets(path: &Path, stream: u64) -> Result<(Vec<Packet>, Vec<String>), Fault> {
    let select = stream.to_string();
    let entries = "packet=pts,dts,duration,flags";
    let (text, messages) =
        probe(path, &["-select_streams", &select, "-show_entries", entries, "-of", "compact=p=0"])?;
    Ok((text.lines().filter_map(packet).collect(), messages))
}

/// Of a line such as `pts=0|dts=-512|duration=512|flags=K_`; `None` for other lines, and for a packet that is not shown.
fn packet(line: &str) -> Option<Packet> {
    let field = |name: &str| line.split('|').find_map(|field| field.strip_prefix(name));
    let number = |name: &str| field(name).and_then(|text| text.parse::<i64>().ok());
    let flags = field("flags=")?;
    (!flags.contains('D')).then(|| Packet {
        time: number("pts="),
        decoded: number("dts="),
        length: number("duration=").unwrap_or(0).max(0),
        key: flags.contains('K'),
    })
}

/// `1/15360` as its two numbers, both positive.
pub(super) fn fraction(text: &str) -> Option<(u32, u32)> {
    let (above, below) = text.split_once('/')?;
    let pair = (above.trim().parse().ok()?, below.trim().parse().ok()?);
    (pair.0 > 0 && pair.1 > 0).then_some(pair)
}

/// The display matrix of a stream or of a picture: three lines, each with its number and three values.
fn orientation(of: &Value) -> Option<Orientation> {
    let text = of["side_data_list"].as_array()?.iter().find_map(|data| data["displaymatrix"].as_str())?;
    let values: Vec<i32> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .flat_map(|(_, values)| values.split_whitespace())
        .map_while(|value| value.parse().ok())
        .collect();
    Orientation::of_matrix(&values)
}

fn matrix(stream: &Value) -> Option<Matrix> {
    match stream["color_space"].as_str()? {
        "bt709" | "smpte240m" => Some(Matrix::Bt709),
        "bt470bg" | "smpte170m" | "fcc" | "gbr" => Some(Matrix::Bt601),
        "bt2020nc" | "bt2020c" => Some(Matrix::Bt2020),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_from_lines_with_and_without_times() {
        let read = |time, decoded, length, key| Some(Packet { time, decoded, length, key });
        assert_eq!(packet("pts=7|dts=5|duration=2|flags=K_"), read(Some(7), Some(5), 2, true));
        assert_eq!(packet("pts=N/A|dts=5|duration=N/A|flags=__|"), read(None, Some(5), 0, false));
        assert_eq!(packet("pts=-9|dts=N/A|duration=2|flags=_D"), None);
        assert_eq!(packet("").or_else(|| packet("program|stream|")), None);
    }
}
