//! A file mapped into memory, as atomic words.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

/// The words of a mapped file. A store is visible to every reader at once and survives this process.
#[derive(Debug)]
pub(super) struct MappedWords {
    map: MmapRaw,
    words: usize,
}

impl MappedWords {
    /// Maps the first words of a file.
    ///
    /// # Errors
    /// The file is too short, or cannot be mapped.
    pub(super) fn of_file(file: &File, words: usize) -> io::Result<Self> {
        if file.metadata()?.len() < (8 * words) as u64 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is too short"));
        }
        let map = MmapOptions::new().len(8 * words).map_raw(file)?;
        Ok(Self { map, words })
    }

    /// One word.
    #[expect(clippy::cast_ptr_alignment, reason = "maps begin at a page")]
    #[expect(
        unsafe_code,
        reason = "memory shared with a file has no safe interface that other processes may write to"
    )]
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "a word beyond the file");
        // SAFETY: the word lies in the map, which lives as long as `self`; maps begin at a page, so it is aligned; it is
        // accessed through atomics only, here and in every other process that maps the file; nobody makes the file shorter.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(index)) }
    }
}
