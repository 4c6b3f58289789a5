//! Where a worker is within its step, in a small file that outlives it: written by the worker, read by its agent.
//!
//! The file holds one record of fixed size. Both sides go through the page cache, so a stamp costs about a microsecond,
//! and a killed worker leaves its last one behind. A record that is caught half written fails its checksum.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::ids::Step;

/// What a worker does within a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum StepPhase {
    /// Nothing: between stages, or waiting to be told.
    Idle = 0,
    /// Waiting for clips.
    Data = 1,
    /// Clips through the backbone without a tape.
    Look = 2,
    /// Neck and head, with a tape.
    Judge = 3,
    /// Clips through the backbone with a tape.
    Replay = 4,
    /// In a collective.
    Reduce = 5,
    /// The optimizer's step.
    Move = 6,
    /// New rows into the memory.
    WriteBack = 7,
    /// A snapshot for a checkpoint.
    Save = 8,
    /// Detecting for a validation.
    Validate = 9,
}

const PHASES: [(StepPhase, &str); 10] = [
    (StepPhase::Idle, "idle"),
    (StepPhase::Data, "data"),
    (StepPhase::Look, "look"),
    (StepPhase::Judge, "judge"),
    (StepPhase::Replay, "replay"),
    (StepPhase::Reduce, "reduce"),
    (StepPhase::Move, "move"),
    (StepPhase::WriteBack, "write_back"),
    (StepPhase::Save, "save"),
    (StepPhase::Validate, "validate"),
];

impl StepPhase {
    /// As it is written in JSON and on the wire.
    pub fn name(self) -> &'static str {
        PHASES[self as usize].1
    }

    /// The phase of that name.
    pub fn named(name: &str) -> Option<Self> {
        PHASES.iter().find(|(_, known)| *known == name).map(|(phase, _)| *phase)
    }
}

/// Where a worker is, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Steps of its stage done.
    pub step: Step,
    /// What it does now.
    pub phase: StepPhase,
    /// When it began to, since the Unix epoch.
    pub since: Duration,
}

/// step (8), since in nanoseconds (8), phase (1), checksum of those (8).
const RECORD_BYTES: usize = 25;

/// Where the file of a worker lies: beside its agent's socket.
pub fn path(socket: &Path, index: u32) -> PathBuf {
    socket.with_file_name(format!("worker-{index}.stamp"))
}

/// The file of one worker.
#[derive(Debug)]
pub struct StampFile {
    file: File,
}

impl StampFile {
    /// Opens the file for writing; makes it where it does not exist.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file })
    }

    /// Says that `phase` of `step` begins now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn enter(&self, step: Step, phase: StepPhase) -> io::Result<()> {
        // A clock before 1970 makes stamps useless, never the step.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.file.write_all_at(&encode(Stamp { step, phase, since }), 0)
    }

    /// The newest stamp; nothing where there is none, or where it is caught half written.
    pub fn read(&self) -> Option<Stamp> {
        let mut record = [0; RECORD_BYTES];
        self.file.read_exact_at(&mut record, 0).ok()?;
        decode(&record)
    }
}

fn encode(stamp: Stamp) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(&stamp.step.0.to_le_bytes());
    record[8..16].copy_from_slice(&(stamp.since.as_nanos() as u64).to_le_bytes());
    record[16] = stamp.phase as u8;
    let checksum = checksum(&record[..17]);
    record[17..].copy_from_slice(&checksum);
    record
}

fn decode(record: &[u8; RECORD_BYTES]) -> Option<Stamp> {
    if record[17..] != checksum(&record[..17]) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| record[range].try_into().map(u64::from_le_bytes).ok();
    Some(Stamp {
        step: Step(number(0..8)?),
        since: Duration::from_nanos(number(8..16)?),
        phase: PHASES.get(usize::from(record[16])).map(|(phase, _)| *phase)?,
    })
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stamp_is_read_back_and_half_a_stamp_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stamp");
        let writer = StampFile::create(&path).unwrap();
        let reader = StampFile::create(&path).unwrap();
        assert_eq!(reader.read(), None);
        for (step, (phase, name)) in PHASES.iter().enumerate() {
            writer.enter(Step(step as u64), *phase).unwrap();
            let stamp = reader.read().unwrap();
            assert_eq!((stamp.step, stamp.phase), (Step(step as u64), *phase));
            assert_eq!(StepPhase::named(name), Some(stamp.phase));
            assert_eq!(stamp.phase.name(), *name);
        }
        writer.file.write_all_at(&[7], 3).unwrap();
        assert_eq!(reader.read(), None);
    }
}
