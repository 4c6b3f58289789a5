//! A file of equal slots, each of one row; read and written by position, so that readers need no lock.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The slab. Slots are numbered from 0; which ones hold what is not its business.
#[derive(Debug)]
pub(super) struct Slab {
    file: File,
    row_bytes: usize,
}

impl Slab {
    /// Opens or creates a slab of rows of this size.
    pub(super) fn open(path: &Path, row_bytes: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, row_bytes })
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
        self.file.read_exact_at(bytes, first * self.row_bytes as u64)
    }

    /// Writes neighbouring slots; the file grows where they lie beyond its end.
    pub(super) fn write(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, first * self.row_bytes as u64)
    }

    /// Returns when all that was written is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
