//! Where the pictures of a file that ffmpeg decodes lie in time, and where to start decoding for one of them.

use super::container::Container;
use super::ffprobe::{Description, Packet};
use super::pictures::{Shown, Start};
use super::sampling::Timeline;

/// A leap of the clock that ffmpeg takes for another recording, in seconds (its option `-dts_delta_threshold`).
const LEAP: f64 = 10.0;

/// What tells pictures apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// The container's times.
    Container,
    /// Times that ffmpeg mends when it reads from the beginning; its time 0 lies so many ticks after the start of the file.
    Mended(i64),
    /// How many come before it.
    Numbers,
}

/// How to reach pictures.
#[derive(Debug)]
pub(super) struct Index {
    /// Start of the file in the container's clock, in ticks of the stream.
    origin: i64,
    /// Whether pictures are found by their times, or, where they have none, by their number.
    clock: Clock,
    tick: (u32, u32),
    /// Positions where decoding can start, ascending, and what to ask the container for, in ticks.
    keys: Vec<(usize, i64)>,
    /// Pictures at the beginning that are not shown: their times lie before 0, and ffmpeg makes up others.
    early: usize,
    /// Whether decoding can start at the first packet: a recording may begin anywhere.
    starts_with_key: bool,
    /// Position of the picture that comes last in the file.
    last_packet: usize,
    /// Where times are ffmpeg's guesses: the pixels that tell whether it guessed alike behind a seek. Otherwise empty.
    checksums: Vec<u32>,
}

/// From packets that say when each picture is shown; `None` if some do not, or the clock leaps.
pub(super) fn of_packets(
    packets: &[Packet],
    described: &Description,
    container: Container,
) -> Option<(Timeline, Index)> {
    let timeless = packets.iter().filter(|packet| packet.time.is_none()).count();
    // ffmpeg gives no time to what Matroska shows before time 0.
    let early = if container == Container::Matroska { timeless } else { 0 };
    if timeless > early || leaps(packets, described.tick, container) {
        return None;
    }
    let first = match early {
        0 => described.first?,
        _ => packets.iter().filter_map(|packet| packet.time).min()?,
    };
    let origin = origin(packets, described);
    let mut shown: Vec<(i64, &Packet)> =
        packets.iter().filter_map(|packet| packet.time.zip(Some(packet))).collect();
    // What comes before the first picture that decodes belongs to a part of the recording that is not there.
    shown.retain(|(time, _)| *time >= first);
    shown.sort_by_key(|(time, _)| *time);
    shown.dedup_by_key(|(time, _)| *time);
    let (last, before) = (shown.last()?, shown.iter().rev().nth(1));
    // The last picture is shown as long as it says, or else as long as the one before it.
    let length = match last.1.length {
        0 => before.map_or(0, |before| last.0 - before.0),
        length => length,
    };
    let timeline = Timeline {
        tick: described.tick,
        times: shown.iter().map(|(time, _)| time.saturating_sub(origin)).collect(),
        end: last.0.saturating_add(length).saturating_sub(origin),
    };
    let keys = (0..).zip(&shown).filter(|(_, (_, packet))| packet.key);
    let keys = keys.map(|(at, (time, packet))| (at, packet.decoded.unwrap_or(*time))).collect();
    let last_packet = packets.last()?.time?;
    let last_packet = shown.partition_point(|(time, _)| *time < last_packet);
    let clock = Clock::Container;
    let (tick, checksums) = (described.tick, Vec::new());
    let starts_with_key = packets.first().is_some_and(|packet| packet.key);
    Some((timeline, Index { origin, clock, tick, keys, early, starts_with_key, last_packet, checksums }))
}

/// From all pictures as they come, with times after the start of the file; `None` if there is none.
///
/// Pictures without a time are left out, as ffmpeg's filter `fps` does, unless none has one: then each is shown for
/// `frame_length` ticks.
pub(super) fn of_pictures(
    shown: Vec<Shown>,
    packets: &[Packet],
    described: &Description,
    frame_length: Option<i64>,
) -> Option<(Timeline, Index)> {
    let origin = origin(packets, described);
    let clock = match shown.iter().find_map(|shown| shown.time) {
        // Where the first picture lies in the container's clock is known: the two clocks differ by that.
        Some(first) => Clock::Mended(described.first.map_or(0, |own| own - first - origin)),
        None => Clock::Numbers,
    };
    let mut pictures: Vec<(i64, Shown)> = match clock {
        Clock::Numbers => {
            let length = frame_length?;
            (0..).zip(shown).map(|(number, shown)| (number * length, shown)).collect()
        }
        _ => shown.into_iter().filter_map(|shown| Some((shown.time?, shown))).collect(),
    };
    // ffmpeg gives pictures in their order; where recordings join, the times of a few go back over what was shown.
    let mut latest = i64::MIN;
    pictures.retain(|(time, _)| {
        let later = *time > latest;
        latest = latest.max(*time);
        later
    });
    let (last, before) = (pictures.last()?.0, pictures.iter().rev().nth(1));
    let own = packets.last().map(|packet| packet.length).filter(|length| *length > 0);
    let length = own.or(before.map(|(before, _)| last - before)).unwrap_or(0);
    let offset = if let Clock::Mended(offset) = clock { offset } else { 0 };
    let timeline = Timeline {
        tick: described.tick,
        times: pictures.iter().map(|(time, _)| time.saturating_add(offset)).collect(),
        end: last.saturating_add(length).saturating_add(offset),
    };
    let keys = (0..).zip(&pictures).filter(|(_, (_, shown))| shown.key && clock != Clock::Numbers);
    let keys = keys.map(|(at, _)| (at, timeline.times[at].saturating_add(origin))).collect();
    let last_packet = pictures.len() - 1;
    let checksums = pictures.iter().map(|(_, shown)| shown.checksum).collect();
    let (tick, early) = (described.tick, 0);
    let starts_with_key = packets.first().is_some_and(|packet| packet.key);
    Some((timeline, Index { origin, clock, tick, keys, early, starts_with_key, last_packet, checksums }))
}

/// Whether ffmpeg would mend the clock: it does where recordings are strung together or the clock wraps around.
fn leaps(packets: &[Packet], tick: (u32, u32), container: Container) -> bool {
    if !matches!(container, Container::TransportStream(_) | Container::ProgramStream | Container::Ogg) {
        return false;
    }
    let most = LEAP * f64::from(tick.1) / f64::from(tick.0);
    let times = packets.iter().filter_map(|packet| packet.decoded);
    times.clone().zip(times.skip(1)).any(|(one, next)| next < one || (next - one) as f64 > most)
}

/// Time 0 in the stream's clock: where the container starts, as ffmpeg counts.
fn origin(packets: &[Packet], described: &Description) -> i64 {
    let ticks = described.start * f64::from(described.tick.1) / f64::from(described.tick.0);
    match packets.iter().filter_map(|packet| packet.time).min() {
        // ffprobe rounds to microseconds; where the pictures start the container, they say it exactly.
        Some(first) if (first as f64 - ticks).abs() <= 1.0 => first,
        _ => ticks.round() as i64,
    }
}

impl Index {
    /// Whether decoding can start at the first packet.
    pub(super) fn starts_with_key(&self) -> bool {
        self.starts_with_key
    }

    /// Position of the picture that comes last in the file.
    pub(super) fn last_packet(&self) -> usize {
        self.last_packet
    }

    /// Where to start decoding for the picture at a position. With a `lead` of 0 the container seeks to the picture itself;
    /// of n, to the n-th key picture before it.
    pub(super) fn start(&self, timeline: &Timeline, position: usize, lead: usize) -> Start {
        let before = self.keys.partition_point(|(key, _)| *key <= position);
        let ticks = match lead {
            // Before the second key picture, the beginning is the shortest way.
            _ if before < 2 || lead >= before => {
                return if self.clock == Clock::Container { Start::Beginning } else { Start::Mended };
            }
            0 => timeline.times[position].saturating_add(self.origin),
            lead => self.keys[before - lead].1,
        };
        // In whole microseconds, rounded up: a key picture itself is not before the time asked for.
        let seconds = ticks as f64 * f64::from(self.tick.0) / f64::from(self.tick.1);
        Start::At((seconds * 1e6).ceil() / 1e6)
    }

    /// The position of a picture that came; `None` if it has none.
    pub(super) fn position(&self, timeline: &Timeline, start: Start, shown: &Shown) -> Option<usize> {
        if start == Start::Beginning && shown.number < self.early {
            return None;
        }
        let time = match (self.clock, start) {
            (Clock::Numbers, _) => return Some(shown.number).filter(|number| *number < timeline.times.len()),
            (Clock::Mended(offset), Start::Mended) => shown.time?.saturating_add(offset),
            _ => shown.time?.saturating_sub(self.origin),
        };
        let position = timeline.times.binary_search(&time).ok()?;
        // Where times are guesses, the pixels tell whether this is the picture that the whole file showed there.
        self.checksums.get(position).is_none_or(|seen| *seen == shown.checksum).then_some(position)
    }

    /// Whether every position has a picture of its own: packets may have none, pictures that were seen are there.
    pub(super) fn is_seen(&self) -> bool {
        !self.checksums.is_empty()
    }
}
