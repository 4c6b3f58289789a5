//! The samples of a fragmented MP4 file: each `moof` box adds some to a track (ISO/IEC 14496-12, section 8.8).

use super::bytes::Bytes;
use super::fault::Fault;
use super::mp4::{Sample, atom, atoms};

/// What holds for samples that say nothing of their own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Defaults {
    duration: u32,
    size: u32,
    flags: u32,
}

/// Set in a sample's flags when decoding cannot start there.
const NON_SYNC: u32 = 0x0001_0000;

/// Per track id, from the body of `mvex`.
pub(super) fn defaults(mvex: &[u8]) -> Vec<(u32, Defaults)> {
    let read = |trex: &[u8]| {
        let mut bytes = Bytes::new(trex);
        bytes.version_and_flags()?;
        let track = bytes.u32()?;
        bytes.u32()?;
        Some((track, Defaults { duration: bytes.u32()?, size: bytes.u32()?, flags: bytes.u32()? }))
    };
    atoms(mvex).filter(|atom| atom.name == *b"trex").filter_map(|atom| read(atom.body)).collect()
}

/// Decoding time of a track's first sample in a fragment; `None` where it has none there.
pub(super) fn decode_time(moof: &[u8], track: u32) -> Option<i64> {
    let traf = atoms(moof).filter(|atom| atom.name == *b"traf").find(|traf| {
        let mut header = Bytes::new(atom(traf.body, *b"tfhd").unwrap_or_default());
        header.version_and_flags();
        header.u32() == Some(track)
    })?;
    Some(own_decode_time(traf.body).unwrap_or(0))
}

fn own_decode_time(traf: &[u8]) -> Option<i64> {
    let mut bytes = Bytes::new(atom(traf, *b"tfdt")?);
    let (version, _) = bytes.version_and_flags()?;
    i64::try_from(bytes.sized(version)?).ok()
}

/// Appends a fragment's samples of one track. `start` is where the `moof` box lies in the file.
pub(super) fn append(
    samples: &mut Vec<Sample>,
    start: u64,
    moof: &[u8],
    track: u32,
    defaults: Defaults,
    length: u64,
) -> Result<(), Fault> {
    // Where data goes on that names no place of its own: behind the data of the fragment before, of any track.
    let mut behind = start;
    for traf in atoms(moof).filter(|atom| atom.name == *b"traf") {
        let fragment = Fragment { start, samples: &mut *samples, length };
        behind = fragment
            .read(traf.body, track, defaults, behind)
            .ok_or_else(|| Fault::damaged("a fragment of its index is cut"))?;
    }
    Ok(())
}

struct Fragment<'a> {
    start: u64,
    samples: &'a mut Vec<Sample>,
    length: u64,
}

/// One `trun` box's place in time and file.
struct Run {
    at: u64,
    time: i64,
    wanted: bool,
}

impl Fragment<'_> {
    /// Returns where this fragment's data ends.
    fn read(mut self, traf: &[u8], track: u32, mut defaults: Defaults, behind: u64) -> Option<u64> {
        let mut header = Bytes::new(atom(traf, *b"tfhd")?);
        let (_, flags) = header.version_and_flags()?;
        let wanted = header.u32()? == track;
        let base = if flags & 0x1 != 0 { Some(header.u64()?) } else { None };
        if flags & 0x2 != 0 {
            header.u32()?;
        }
        for (bit, field) in
            [(0x8, &mut defaults.duration), (0x10, &mut defaults.size), (0x20, &mut defaults.flags)]
        {
            if flags & bit != 0 {
                *field = header.u32()?;
            }
        }
        let base = base.unwrap_or(if flags & 0x2_0000 != 0 { self.start } else { behind });
        let follows =
            || self.samples.last().map_or(0, |last| last.time.saturating_add(i64::from(last.duration)));
        let mut run = Run { at: base, time: own_decode_time(traf).unwrap_or_else(follows), wanted };
        for trun in atoms(traf).filter(|atom| atom.name == *b"trun") {
            run = self.run(trun.body, base, defaults, run)?;
        }
        Some(run.at)
    }

    fn run(&mut self, trun: &[u8], base: u64, defaults: Defaults, mut run: Run) -> Option<Run> {
        let mut bytes = Bytes::new(trun);
        let (_, flags) = bytes.version_and_flags()?;
        let count = bytes.u32()?;
        if flags & 0x1 != 0 {
            run.at = base.checked_add_signed(i64::from(bytes.i32()?))?;
        }
        let first_flags = if flags & 0x4 != 0 { Some(bytes.u32()?) } else { None };
        for number in 0..count {
            let mut field =
                |bit: u32, default: u32| if flags & bit != 0 { bytes.u32() } else { Some(default) };
            let duration = field(0x100, defaults.duration)?;
            let size = field(0x200, defaults.size)?;
            let own_flags = field(0x400, defaults.flags)?;
            let delay = field(0x800, 0)?.cast_signed();
            let own_flags = if number == 0 { first_flags.unwrap_or(own_flags) } else { own_flags };
            if run.wanted {
                // A run without fields of its own takes no bytes a sample: the file's length bounds it.
                if self.samples.len() as u64 >= self.length {
                    return None;
                }
                self.samples.push(Sample {
                    offset: run.at,
                    size,
                    time: run.time.saturating_add(i64::from(delay)),
                    duration,
                    sync: own_flags & NON_SYNC == 0,
                });
            } else if flags & 0xf00 == 0 {
                let rest = u64::from(count - number);
                run.at = run.at.checked_add(u64::from(size).checked_mul(rest)?)?;
                break;
            }
            run.at = run.at.checked_add(u64::from(size))?;
            run.time = run.time.saturating_add(i64::from(duration));
        }
        Some(run)
    }
}
