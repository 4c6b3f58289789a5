//! The sample table of an unfragmented track: run-length tables become one entry a sample (ISO/IEC 14496-12, section 8.5 to 8.7).

use super::bytes::Bytes;
use super::fault::Fault;
use super::mp4::{Sample, atom};

fn cut(name: &str) -> Fault {
    Fault::damaged(format!("the table `{name}` of its index does not fit the others"))
}

/// Body of a table after version and flags; a table that is absent is empty.
fn table(stbl: &[u8], name: [u8; 4]) -> Option<Bytes<'_>> {
    let mut bytes = Bytes::new(atom(stbl, name)?);
    bytes.version_and_flags()?;
    Some(bytes)
}

/// Expands a run-length table of (count, value) pairs; gives the last value once the runs are used up.
struct Runs<'a> {
    bytes: Bytes<'a>,
    entries: u32,
    left: u32,
    value: u32,
}

impl<'a> Runs<'a> {
    fn new(stbl: &'a [u8], name: [u8; 4]) -> Option<Self> {
        let mut bytes = table(stbl, name)?;
        let entries = bytes.u32()?;
        Some(Self { bytes, entries, left: 0, value: 0 })
    }

    fn next(&mut self) -> u32 {
        while self.left == 0 && self.entries > 0 {
            self.entries -= 1;
            match (self.bytes.u32(), self.bytes.u32()) {
                (Some(count), Some(value)) => (self.left, self.value) = (count, value),
                _ => self.entries = 0,
            }
        }
        self.left = self.left.saturating_sub(1);
        self.value
    }
}

/// The samples of a table in decoding order; none where the track is fragmented. No more than one sample a byte of the file.
pub(super) fn read(stbl: &[u8], length: u64) -> Result<Vec<Sample>, Fault> {
    let sizes = sizes(stbl, length)?;
    if sizes.is_empty() {
        return Ok(Vec::new());
    }
    let offsets = offsets(stbl, &sizes)?;
    let mut durations = Runs::new(stbl, *b"stts").ok_or_else(|| cut("stts"))?;
    let mut delays = Runs::new(stbl, *b"ctts");
    let mut sync = sync_samples(stbl);
    let mut decode_time = 0i64;
    let mut samples = Vec::with_capacity(sizes.len());
    for (number, (&size, &offset)) in (1u32..).zip(sizes.iter().zip(&offsets)) {
        // Version 0 says unsigned, but files with negative delays are common; players read both as signed.
        let delay = delays.as_mut().map_or(0, |delays| i64::from(delays.next().cast_signed()));
        let duration = durations.next();
        let is_sync =
            sync.as_mut().is_none_or(|numbers| numbers.next_if(|next| *next <= number) == Some(number));
        samples.push(Sample { offset, size, time: decode_time + delay, duration, sync: is_sync });
        // At most 2^32 samples of 2^32 ticks: cannot leave an i64 for files that exist.
        decode_time = decode_time.saturating_add(i64::from(duration));
    }
    Ok(samples)
}

fn sizes(stbl: &[u8], length: u64) -> Result<Vec<u32>, Fault> {
    let sizes = if let Some(mut bytes) = table(stbl, *b"stsz") {
        let (constant, count) = bytes.u32().zip(bytes.u32()).ok_or_else(|| cut("stsz"))?;
        if constant == 0 {
            (0..count).map_while(|_| bytes.u32()).collect::<Vec<_>>()
        } else {
            // A constant size needs no bytes in the table, so the file itself is the bound.
            let bound = length / u64::from(constant) + 1;
            vec![constant; u64::from(count).min(bound) as usize]
        }
    } else if let Some(mut bytes) = table(stbl, *b"stz2") {
        let (field, count) = bytes.u32().zip(bytes.u32()).ok_or_else(|| cut("stz2"))?;
        match field & 0xff {
            8 => (0..count).map_while(|_| bytes.u8().map(u32::from)).collect(),
            16 => (0..count).map_while(|_| bytes.u16().map(u32::from)).collect(),
            _ => return Err(cut("stz2")),
        }
    } else {
        return Err(cut("stsz"));
    };
    Ok(sizes)
}

/// Where each sample lies: chunks hold runs of samples, runs of chunks hold equally many.
fn offsets(stbl: &[u8], sizes: &[u32]) -> Result<Vec<u64>, Fault> {
    let mut runs = table(stbl, *b"stsc").ok_or_else(|| cut("stsc"))?;
    let mut entries = Vec::new();
    for _ in 0..runs.u32().ok_or_else(|| cut("stsc"))? {
        let Some(((first, per_chunk), _)) = runs.u32().zip(runs.u32()).zip(runs.u32()) else {
            return Err(cut("stsc"));
        };
        entries.push((first, per_chunk));
    }
    let (mut chunks, wide) = match table(stbl, *b"stco") {
        Some(chunks) => (chunks, false),
        None => (table(stbl, *b"co64").ok_or_else(|| cut("stco"))?, true),
    };
    let count = chunks.u32().ok_or_else(|| cut("stco"))?;
    let mut entries = entries.into_iter().peekable();
    let mut per_chunk = 0;
    let mut left = sizes.iter();
    let mut offsets = Vec::with_capacity(sizes.len());
    for chunk in 1..=count {
        while let Some((_, samples)) = entries.next_if(|(first, _)| *first <= chunk) {
            per_chunk = samples;
        }
        let offset = if wide { chunks.u64() } else { chunks.u32().map(u64::from) };
        let mut at = offset.ok_or_else(|| cut("stco"))?;
        for size in left.by_ref().take(per_chunk as usize) {
            offsets.push(at);
            at = at.saturating_add(u64::from(*size));
        }
    }
    if offsets.len() < sizes.len() { Err(cut("stsc")) } else { Ok(offsets) }
}

/// Numbers of the samples where decoding can start, ascending; `None` where all are.
fn sync_samples(stbl: &[u8]) -> Option<std::iter::Peekable<impl Iterator<Item = u32>>> {
    let mut bytes = table(stbl, *b"stss")?;
    let count = bytes.u32()?;
    Some((0..count).map_while(move |_| bytes.u32()).peekable())
}
