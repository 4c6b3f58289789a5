//! A file of equal slots, each of one row; read and written by position, so that readers need no lock.
//!
//! What is put into slots waits in memory for the thread that writes them, and is read from there until then. A crash
//! loses no more by that: rows count as remembered once the ledger says so, and the ledger follows the slab.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Bytes that may wait; what would be more is written at once by whoever puts it.
const MOST_WAITING: usize = 64 << 20;

/// The slab. Slots are numbered from 0; which ones hold what is not its business.
#[derive(Debug)]
pub(super) struct Slab {
    file: File,
    row_bytes: usize,
    waiting: Mutex<Waiting>,
}

/// Neighbouring slots that are not in the file yet, by the first of them.
#[derive(Debug, Default)]
struct Waiting {
    blocks: BTreeMap<u64, Bytes>,
    bytes: usize,
}

impl Slab {
    /// Opens or creates a slab of rows of this size.
    pub(super) fn open(path: &Path, row_bytes: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, row_bytes, waiting: Mutex::default() })
    }

    /// Bytes of a slot.
    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Whole slots that the file has.
    pub(super) fn slots(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len() / self.row_bytes as u64)
    }

    /// Reads neighbouring slots, as many as the bytes hold.
    pub(super) fn read(&self, first: u64, bytes: &mut [u8]) -> io::Result<()> {
        let end = first + (bytes.len() / self.row_bytes) as u64;
        // Looked at before the file: a block stops waiting only after it is there.
        let waiting = self.waiting_in(first..end);
        let mut at = first;
        for (start, block) in waiting {
            let from = start.max(first);
            self.read_file(at, &mut bytes[self.span(at - first..from - first)])?;
            at = end.min(start + (block.len() / self.row_bytes) as u64);
            bytes[self.span(from - first..at - first)]
                .copy_from_slice(&block[self.span(from - start..at - start)]);
        }
        self.read_file(at, &mut bytes[self.span(at - first..end - first)])
    }

    /// Puts rows into runs of free slots; the file grows where they lie beyond its end. A row can be read at once, and
    /// is in the file after the next [`Self::settle`].
    ///
    /// # Errors
    /// So much waits that the rows were to be written at once, and the system failed. None of them waits then.
    pub(super) fn put(&self, runs: &[Range<u64>], mut bytes: Bytes) -> io::Result<()> {
        let length = bytes.len();
        let blocks =
            runs.iter().map(|run| (run.start, bytes.split_to(self.span(0..run.end - run.start).end)));
        let mut waiting = self.waiting();
        if waiting.bytes + length <= MOST_WAITING {
            waiting.bytes += length;
            waiting.blocks.extend(blocks);
            return Ok(());
        }
        drop(waiting);
        blocks.into_iter().try_for_each(|(first, block)| self.write_file(first, &block))
    }

    /// Writes to the file what waits.
    pub(super) fn settle(&self) -> io::Result<()> {
        loop {
            let next = self.waiting().blocks.first_key_value().map(|(first, block)| (*first, block.clone()));
            let Some((first, block)) = next else { return Ok(()) };
            self.write_file(first, &block)?;
            let mut waiting = self.waiting();
            waiting.blocks.remove(&first);
            waiting.bytes -= block.len();
        }
    }

    /// Returns when all that was settled is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Blocks of which a part lies in these slots, in order.
    fn waiting_in(&self, slots: Range<u64>) -> Vec<(u64, Bytes)> {
        let waiting = self.waiting();
        let mut found: Vec<(u64, Bytes)> = waiting
            .blocks
            .range(..slots.end)
            .rev()
            .take_while(|(first, block)| *first + (block.len() / self.row_bytes) as u64 > slots.start)
            .map(|(first, block)| (*first, block.clone()))
            .collect();
        found.reverse();
        found
    }

    fn read_file(&self, first: u64, bytes: &mut [u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.file.read_exact_at(bytes, first * self.row_bytes as u64)
    }

    fn write_file(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, first * self.row_bytes as u64)
    }

    /// Where slots lie in bytes that begin with slot 0.
    fn span(&self, slots: Range<u64>) -> Range<usize> {
        slots.start as usize * self.row_bytes..slots.end as usize * self.row_bytes
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: usize = 6;

    fn rows(slots: Range<u64>) -> Vec<u8> {
        slots.flat_map(|slot| [slot as u8 + 1; ROW]).collect()
    }

    fn slab() -> (tempfile::TempDir, Slab) {
        let folder = tempfile::tempdir().unwrap();
        let slab = Slab::open(&folder.path().join("slab"), ROW).unwrap();
        (folder, slab)
    }

    #[test]
    fn slots_are_read_alike_before_and_after_they_are_in_the_file() {
        let (_folder, slab) = slab();
        slab.put(&[0..20], rows(0..20).into()).unwrap();
        slab.settle().unwrap();
        slab.put(&[3..5, 9..10], [[90; 2 * ROW].as_slice(), &[91; ROW]].concat().into()).unwrap();
        slab.put(&[10..12, 20..22], rows(30..34).into()).unwrap();
        let mut expected = rows(0..20);
        expected.extend(rows(32..34));
        expected[3 * ROW..5 * ROW].fill(90);
        expected[9 * ROW..10 * ROW].fill(91);
        expected[10 * ROW..12 * ROW].copy_from_slice(&rows(30..32));
        let check = |slab: &Slab| {
            for first in 0..22usize {
                for end in first..=22 {
                    let mut found = vec![0; (end - first) * ROW];
                    slab.read(first as u64, &mut found).unwrap();
                    assert_eq!(found, expected[first * ROW..end * ROW], "{first}..{end}");
                }
            }
        };
        check(&slab);
        assert_eq!(slab.slots().unwrap(), 20, "two slots beyond the end wait");
        slab.settle().unwrap();
        check(&slab);
        assert_eq!((slab.slots().unwrap(), slab.waiting().bytes), (22, 0));
    }

    #[test]
    fn more_than_may_wait_is_written_at_once() {
        let (_folder, slab) = slab();
        let count = (MOST_WAITING / ROW) as u64;
        slab.put(&[0..count], vec![1; count as usize * ROW].into()).unwrap();
        assert_eq!(slab.slots().unwrap(), 0);
        slab.put(&[count..count + 2], rows(0..2).into()).unwrap();
        assert_eq!(slab.slots().unwrap(), count + 2);
        let mut found = vec![0; 2 * ROW];
        slab.read(count, &mut found).unwrap();
        assert_eq!(found, rows(0..2));
        slab.settle().unwrap();
        slab.read(count - 1, &mut found).unwrap();
        assert_eq!(found, [[1; ROW], [1; ROW]].concat());
    }
}
