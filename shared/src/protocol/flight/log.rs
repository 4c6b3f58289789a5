//! Reading a flight recorder, during the life of its worker and after it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use super::{
    BLOCK_BYTES, FILE_BYTES, FlightRecord, MAGIC, RECORDS, WORDS, anchor, decode, earlier, header,
    nanoseconds, place,
};

/// A flight recorder, open for reading.
#[derive(Debug)]
pub struct FlightLog {
    file: File,
}

/// The content of a flight recorder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flight {
    /// Offset that turns the times of records into times since the Unix epoch.
    pub anchor: Duration,
    /// Process id of the writer; absent before it has opened the file.
    pub pid: Option<u32>,
    /// Its last sign of life; absent before the first.
    pub alive: Option<Duration>,
    /// Number of times its training thread has waited for control, or might have.
    pub awaited: u64,
    /// Messages sent to its agent.
    pub said: u64,
    /// Records, oldest first.
    pub records: Vec<FlightRecord>,
    /// Number of records that were half written.
    pub torn: usize,
}

impl FlightLog {
    /// Creates the file for a worker that is about to start, and renames the file of the previous process. The worker will give
    /// a sign of life every `beat`.
    ///
    /// # Errors
    /// The file or its folder cannot be created.
    pub fn create(path: &Path, beat: Duration) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::rename(path, earlier(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut bytes = vec![0; FILE_BYTES];
        for (word, value) in [
            (header::MAGIC, MAGIC),
            (header::ANCHOR, nanoseconds(anchor())),
            (header::BEAT, nanoseconds(beat)),
        ] {
            bytes[8 * word..8 * (word + 1)].copy_from_slice(&value.to_ne_bytes());
        }
        // The whole file is written now: a store into a file without disk space would kill the worker.
        let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.write_all(&bytes)?;
        Ok(Self { file })
    }

    /// Opens the file of a worker.
    ///
    /// # Errors
    /// The file cannot be read, or is not a flight recorder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let log = Self { file: File::open(path)? };
        if log.block(0)?[header::MAGIC] != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a flight recorder"));
        }
        Ok(log)
    }

    /// Changes the time between two signs of life.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_beat(&self, beat: Duration) -> io::Result<()> {
        self.file.write_all_at(&nanoseconds(beat).to_ne_bytes(), 8 * header::BEAT as u64)
    }

    /// The whole content.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<Flight> {
        self.read_from(1)
    }

    /// The content from a record on.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_from(&self, first: u64) -> io::Result<Flight> {
        let header = self.block(0)?;
        let newest = header[header::NEWEST];
        let oldest = first.max(1).max(newest.saturating_sub(RECORDS - 1));
        let mut records: Vec<FlightRecord> = Vec::new();
        let mut torn = 0;
        // A killed process may have stored one more record than the header names.
        for sequence in oldest..=newest + 1 {
            let record = decode(&self.block(place(sequence))?).filter(|record| record.sequence == sequence);
            match record {
                Some(record) => {
                    if let Some(before) = records.last_mut().filter(|before| before.sequence + 1 == sequence)
                    {
                        before.took = Some(record.entered_at.saturating_sub(before.entered_at));
                    }
                    records.push(record);
                }
                None => torn += usize::from(sequence <= newest),
            }
        }
        let nothing_at_zero = |word: usize| Some(header[word]).filter(|value| *value > 0);
        Ok(Flight {
            anchor: Duration::from_nanos(header[header::ANCHOR]),
            pid: nothing_at_zero(header::PID).map(|pid| pid as u32),
            alive: nothing_at_zero(header::ALIVE).map(Duration::from_nanos),
            awaited: header[header::AWAITED],
            said: header[header::SAID],
            records,
            torn,
        })
    }

    fn block(&self, first_word: usize) -> io::Result<[u64; WORDS]> {
        let mut bytes = [0; BLOCK_BYTES];
        self.file.read_exact_at(&mut bytes, 8 * first_word as u64)?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().expect("chunks of eight"));
        }
        Ok(words)
    }
}
