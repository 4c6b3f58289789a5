//! The coordinator's journal: the durable records that its successor needs. A record is written before it is announced.
//!
//! A file of framed records, appended and synced one by one. Each frame is the payload's length (4 bytes, little endian),
//! the first 8 bytes of its BLAKE3, and the payload as JSON. A crash can only tear the last frame; opening the file cuts off
//! a frame whose checksum does not match.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use longtake_shared::hint::Hint;
use longtake_shared::ids::{Generation, Incarnation};

use crate::run::Orphan;
use crate::run::record::Record;

/// The first bytes of every journal; the last of them is the format's version.
const MAGIC: [u8; 8] = *b"LTJOURN\x02";

/// Size of a frame header in bytes.
const FRAME_HEADER: usize = 12;

/// Name of the journal in a run's folder.
pub const FILE_NAME: &str = "journal";

/// An unusable journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be read or written.
    #[error("cannot {verb} the journal `{path}`")]
    Io {
        /// The operation that failed.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is not a journal.
    #[error("`{path}` is not a journal of this version of Longtake")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

impl Hint for JournalError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { .. } => None,
            Self::Foreign { .. } => Some("move the file away; checkpoints do not depend on it".to_owned()),
        }
    }
}

/// The journal of a run, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

/// The content of a journal when it was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// All records.
    pub records: Vec<Record>,
    /// Bytes at the end that failed the checksum and were cut off.
    pub torn_bytes: u64,
}

impl History {
    /// The newest incarnation and generation recorded.
    pub fn newest(&self) -> (Incarnation, Generation) {
        self.records.iter().fold((Incarnation(0), Generation(0)), |(incarnation, generation), record| {
            match record {
                Record::Started { incarnation: started, .. } => (incarnation.max(*started), generation),
                Record::Generation { team, .. } => (incarnation, generation.max(team.generation)),
                Record::Committed(_) | Record::Ended { .. } => (incarnation, generation),
            }
        })
    }

    /// The generation that may still run without its coordinator: the newest one, unless the run has ended since.
    pub fn orphan(&self) -> Option<Orphan> {
        self.records.iter().fold(None, |orphan, record| match record {
            Record::Generation { team, indices } => {
                Some(Orphan { team: team.clone(), indices: indices.clone() })
            }
            Record::Ended { .. } => None,
            Record::Started { .. } | Record::Committed(_) => orphan,
        })
    }
}

impl Journal {
    /// Opens or creates the journal of a run's folder and reads its records.
    ///
    /// # Errors
    /// The file cannot be read or written, or is not a journal.
    pub fn open(run_folder: &Path) -> Result<(Self, History), JournalError> {
        let path = run_folder.join(FILE_NAME);
        let failed = |verb| {
            let path = path.clone();
            move |source| JournalError::Io { verb, path, source }
        };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read"))?;
        if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
            file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&MAGIC)).map_err(failed("create"))?;
            file.sync_all().map_err(failed("create"))?;
            return Ok((Self { path, file }, History { records: Vec::new(), torn_bytes: 0 }));
        }
        let frames =
            bytes.strip_prefix(&MAGIC).ok_or_else(|| JournalError::Foreign { path: path.clone() })?;
        let (records, whole) = read_frames(frames);
        let end = (MAGIC.len() + whole) as u64;
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(failed("repair"))?;
        let torn_bytes = bytes.len() as u64 - end;
        Ok((Self { path, file }, History { records, torn_bytes }))
    }

    /// Appends a record and waits until it is durable.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { verb: "write", path: self.path.clone(), source };
        let payload = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        let mut frame = Vec::with_capacity(FRAME_HEADER + payload.len());
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        frame.extend_from_slice(&checksum(&payload));
        frame.extend_from_slice(&payload);
        self.file.write_all(&frame).and_then(|()| self.file.sync_data()).map_err(failed)
    }
}

/// The records of all whole frames, and their total size in bytes.
fn read_frames(frames: &[u8]) -> (Vec<Record>, usize) {
    let (mut records, mut whole) = (Vec::new(), 0);
    while let Some((record, length)) = read_frame(&frames[whole..]) {
        records.push(record);
        whole += length;
    }
    (records, whole)
}

fn read_frame(bytes: &[u8]) -> Option<(Record, usize)> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let end = FRAME_HEADER.checked_add(length)?;
    let payload = bytes.get(FRAME_HEADER..end)?;
    if bytes[4..FRAME_HEADER] != checksum(payload) {
        return None;
    }
    Some((serde_json::from_slice(payload).ok()?, end))
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&blake3::hash(payload).as_bytes()[..8]);
    short
}

#[cfg(test)]
mod tests {
    use longtake_shared::ids::{LaneId, WorkerId};

    use super::*;
    use crate::run::phase::Team;
    use crate::updates::Outcome;

    fn records() -> Vec<Record> {
        vec![
            Record::Started { incarnation: Incarnation(3), config_hash: "ab".into() },
            Record::Generation {
                team: Team {
                    generation: Generation(7),
                    incarnation: Incarnation(3),
                    members: vec![WorkerId("w0.3.0".into())],
                    lanes: vec![vec![LaneId(0)]],
                },
                indices: vec![0],
            },
            Record::Ended { outcome: Outcome::Done },
        ]
    }

    fn written(folder: &Path) -> Vec<u8> {
        let (mut journal, _) = Journal::open(folder).unwrap();
        for record in records() {
            journal.append(&record).unwrap();
        }
        std::fs::read(folder.join(FILE_NAME)).unwrap()
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let (_, history) = Journal::open(folder.path()).unwrap();
        assert_eq!(history, History { records: records(), torn_bytes: 0 });
        assert_eq!(history.newest(), (Incarnation(3), Generation(7)));
    }

    #[test]
    fn a_journal_cut_anywhere_keeps_its_whole_records_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = written(folder.path());
        for cut in 0..bytes.len() {
            std::fs::write(folder.path().join(FILE_NAME), &bytes[..cut]).unwrap();
            let (mut journal, history) = Journal::open(folder.path()).unwrap();
            assert!(records().starts_with(&history.records), "cut at {cut}");
            assert!(history.records.len() < 3);
            journal.append(&Record::Ended { outcome: Outcome::Done }).unwrap();
            let (_, again) = Journal::open(folder.path()).unwrap();
            assert_eq!(again.records.len(), history.records.len() + 1, "cut at {cut}");
            assert_eq!(again.torn_bytes, 0);
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_journal_before_its_record() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = written(folder.path());
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        std::fs::write(folder.path().join(FILE_NAME), &bytes).unwrap();
        let (_, history) = Journal::open(folder.path()).unwrap();
        assert_eq!(history.records, records()[..2]);
        assert!(history.torn_bytes > 0);
    }

    #[test]
    fn a_file_that_is_no_journal_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), b"something else").unwrap();
        assert!(matches!(Journal::open(folder.path()), Err(JournalError::Foreign { .. })));
    }
}
