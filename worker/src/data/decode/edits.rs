//! Time zero of an MP4 file: what its edit lists delay and leave out, and where its first track starts.

use super::bytes::Bytes;
use super::fault::Fault;
use super::fragments;
use super::mp4::{Movie, Sample, Track, atom, timescale, track_id};

/// The two clocks of an edit list, in ticks a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) movie: u32,
    pub(super) track: u32,
}

/// What part of the media is shown, in ticks of the track, and how long after the start of the movie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edit {
    delay: i64,
    from: i64,
    length: Option<i64>,
}

/// The edit list of a track, if it has one that shows something.
pub(super) fn of_track(trak: &[u8], clock: Clock) -> Result<Option<Edit>, Fault> {
    match atom(trak, *b"edts").and_then(|edts| atom(edts, *b"elst")) {
        Some(elst) => edit_list(elst, clock),
        None => Ok(None),
    }
}

/// An edit list of the usual kinds: empty edits that delay, then one part of the media at normal speed.
fn edit_list(elst: &[u8], clock: Clock) -> Result<Option<Edit>, Fault> {
    let parse = || -> Option<Vec<(u64, i64)>> {
        let mut bytes = Bytes::new(elst);
        let (version, _) = bytes.version_and_flags()?;
        let count = bytes.u32()?;
        let mut edits = Vec::new();
        for _ in 0..count {
            let duration = bytes.sized(version)?;
            let from = if version == 1 { bytes.i64()? } else { i64::from(bytes.i32()?) };
            bytes.u32()?;
            edits.push((duration, from));
        }
        Some(edits)
    };
    let edits = parse().ok_or_else(|| Fault::damaged("its edit list is cut"))?;
    let ticks = |duration: u64| {
        let ticks = u128::from(duration) * u128::from(clock.track) / u128::from(clock.movie.max(1));
        i64::try_from(ticks).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
    };
    let mut delay = 0i64;
    let mut shown = edits.iter().skip_while(|(duration, from)| {
        let empty = *from < 0;
        delay = delay.saturating_add(if empty { ticks(*duration) } else { 0 });
        empty
    });
    let Some(&(duration, from)) = shown.next() else {
        return Ok(None);
    };
    if shown.next().is_some() {
        return Err(Fault::unsupported("its edit list has several parts"));
    }
    let length = (duration > 0).then(|| ticks(duration).saturating_add(ticks(1)));
    Ok(Some(Edit { delay: delay.min(i64::MAX / 4), from: from.min(i64::MAX / 4), length }))
}

/// Moves the samples' times from the media's clock to the movie's. Returns where an edit list ends the video, if it does.
///
/// Of a track that is all in fragments, an edit list moves the pictures but leaves none out: so ffmpeg reads it.
pub(super) fn place_in_time(samples: &mut [Sample], edit: Option<Edit>, fragments: bool) -> Option<i64> {
    let first = samples.iter().map(|sample| sample.time).min().unwrap_or(0);
    let Some(edit) = edit else {
        // Pictures before the movie's time 0 are shown, and start the file.
        for sample in samples.iter_mut() {
            sample.time = sample.time.saturating_sub(first.min(0));
        }
        return None;
    };
    if fragments {
        let from = edit.from.min(first.saturating_add(edit.delay));
        let moved = edit.delay.saturating_sub(from);
        for sample in samples.iter_mut() {
            sample.time = sample.time.saturating_add(moved);
        }
        return None;
    }
    // The part that is shown may begin between two pictures: then the first whole one is shown when it begins.
    let shown = samples.iter().map(|sample| sample.time.saturating_sub(edit.from)).filter(|time| *time >= 0);
    let late = shown.min().unwrap_or(0);
    for sample in samples.iter_mut() {
        sample.time = sample.time.saturating_sub(edit.from);
        // What lies before the shown part stays negative; the rest waits for the delay.
        if sample.time >= 0 {
            sample.time = (sample.time - late).saturating_add(edit.delay);
        }
    }
    edit.length.map(|length| length.saturating_sub(late).saturating_add(edit.delay))
}

/// When the first shown picture of a track is shown, in seconds of the movie.
pub(super) fn video_starts(track: &Track) -> Option<f64> {
    let first = track.samples.iter().map(|sample| sample.time).filter(|time| *time >= 0).min()?;
    Some(first as f64 / f64::from(track.timescale))
}

/// When sound starts, in seconds of the movie; `None` for a track without samples or without a clock.
pub(super) fn sound_starts(trak: &[u8], movie: &Movie, moofs: &[(u64, Vec<u8>)]) -> Option<f64> {
    let mdia = atom(trak, *b"mdia")?;
    let scale = timescale(atom(mdia, *b"mdhd")?).filter(|scale| *scale > 0)?;
    let stbl = atom(mdia, *b"minf").and_then(|minf| atom(minf, *b"stbl"))?;
    let id = track_id(atom(trak, *b"tkhd")?)?;
    let in_table = atom(stbl, *b"stts").and_then(|stts| stts.get(4..8)).is_some_and(|count| count != [0; 4]);
    let first = match movie.fragments(id) {
        _ if in_table => 0,
        Some(_) => moofs.iter().find_map(|(_, moof)| fragments::decode_time(moof, id))?,
        None => return None,
    };
    let clock = Clock { movie: movie.timescale, track: scale };
    let (from, delay) = of_track(trak, clock).ok()?.map_or((0, 0), |edit| (edit.from, edit.delay));
    // What an edit list cuts off in front is left out, not shown before time 0.
    let shown = first.saturating_sub(from).max(0).saturating_add(delay);
    Some(shown as f64 / f64::from(scale))
}

/// Makes times count from the start of the file, which is where the first of its tracks starts, as ffmpeg counts: in whole
/// microseconds, but exactly where that is the video's own first picture.
pub(super) fn count_from(track: &mut Track, start: f64) {
    let scale = f64::from(track.timescale);
    let origin = match video_starts(track) {
        Some(first) if first <= start => (first * scale).round(),
        _ => ((start * 1e6).round() / 1e6 * scale).round(),
    } as i64;
    for sample in track.samples.iter_mut().filter(|sample| sample.time >= 0) {
        sample.time = sample.time.saturating_sub(origin);
    }
    track.shown_until = track.shown_until.map(|until| until.saturating_sub(origin));
}
