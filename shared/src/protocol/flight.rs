//! The flight recorder of a worker: its latest phases, in a file that survives the process. The worker writes it; its agent and `longtake flight` read it.
//!
//! ```text
//! <run>/flight/worker-<index>.ring     header (64 B) | 4096 records of 64 B, the newest over the oldest
//! <run>/flight/worker-<index>.earlier  the file of the previous process
//! ```
//!
//! The file is mapped into the worker's memory: a record costs a few stores and no system call, and the kernel keeps the
//! stores of a killed process. Readers use plain reads and leave out a record whose checksum does not match because it was
//! half written. All times are those of [`crate::protocol::flight::now`], a monotonic clock; the header relates them to the
//! Unix epoch.

mod log;
mod mapped;
mod recorder;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::stamp::StepPhase;
use crate::ids::{Generation, Step};

pub use log::{Flight, FlightLog};
pub use recorder::Recorder;

/// Records in a file; a training step has about ten.
pub const RECORDS: u64 = 4096;

/// Size of the header and of a record in words.
const WORDS: usize = 8;

/// Size of the header and of a record in bytes.
const BLOCK_BYTES: usize = 8 * WORDS;

/// Size of a file in bytes.
const FILE_BYTES: usize = BLOCK_BYTES * (RECORDS as usize + 1);

/// `ltflight` in the byte order of the machine, which is that of all further words.
const MAGIC: u64 = u64::from_be_bytes(*b"ltflight");

/// Positions of the words in the header.
mod header {
    /// [`super::MAGIC`].
    pub(super) const MAGIC: usize = 0;
    /// Negated value of [`super::now`] at the Unix epoch, in nanoseconds.
    pub(super) const ANCHOR: usize = 1;
    /// Nanoseconds between two signs of life; written by the agent at any time.
    pub(super) const BEAT: usize = 2;
    /// Process id of the writer.
    pub(super) const PID: usize = 3;
    /// Its last sign of life.
    pub(super) const ALIVE: usize = 4;
    /// Sequence number of the newest record; written after the record.
    pub(super) const NEWEST: usize = 5;
    /// Number of times the training thread has waited for control.
    pub(super) const AWAITED: usize = 6;
    /// Messages sent to the agent.
    pub(super) const SAID: usize = 7;
}

/// One phase of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlightRecord {
    /// Position among all records of the process, from 1.
    pub sequence: u64,
    /// The generation; 0 before the first.
    pub generation: Generation,
    /// Steps of the stage done before it.
    pub step: Step,
    /// The phase.
    pub phase: StepPhase,
    /// Whether it continues the previous record of the same phase, after another phase within it: both are parts of one.
    pub resumed: bool,
    /// Time of its begin, by [`now`].
    pub entered_at: Duration,
    /// Its duration; absent for the newest record, which still runs or ran when the process ended.
    pub took: Option<Duration>,
}

/// The clock of flight recorders: monotonic, and common to all processes of a machine.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Path of the file of a worker.
pub fn path(run_folder: &Path, index: u32) -> PathBuf {
    run_folder.join("flight").join(format!("worker-{index}.ring"))
}

/// Path of the file of the previous process.
pub fn earlier(path: &Path) -> PathBuf {
    path.with_extension("earlier")
}

/// Negated value of [`now`] at the Unix epoch.
fn anchor() -> Duration {
    // A clock before 1970 spoils only the times of day, not the order of records.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    clock.saturating_sub(now())
}

fn nanoseconds(time: Duration) -> u64 {
    // Sufficient for 584 years.
    time.as_nanos() as u64
}

/// Flag in the word of the phase: [`FlightRecord::resumed`].
const RESUMED: u64 = 1 << 8;

/// A record as stored in the file: sequence, generation, step, phase, entered_at, checksum of those.
fn encode(record: &FlightRecord) -> [u64; WORDS] {
    let mut words = [
        record.sequence,
        record.generation.0,
        record.step.0,
        record.phase as u64 | if record.resumed { RESUMED } else { 0 },
        nanoseconds(record.entered_at),
        0,
        0,
        0,
    ];
    words[5] = checksum(&words);
    words
}

/// The record of some words; none if it is half written or absent.
fn decode(words: &[u64; WORDS]) -> Option<FlightRecord> {
    if words[0] == 0 || words[5] != checksum(words) {
        return None;
    }
    Some(FlightRecord {
        sequence: words[0],
        generation: Generation(words[1]),
        step: Step(words[2]),
        phase: StepPhase::numbered(words[3] & !RESUMED)?,
        resumed: words[3] & RESUMED != 0,
        entered_at: Duration::from_nanos(words[4]),
        took: None,
    })
}

/// Detects records of which only some words were stored.
fn checksum(words: &[u64; WORDS]) -> u64 {
    let mut bytes = [0; 40];
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    // Never 0, the content of an unused place.
    u64::from(crc32fast::hash(&bytes)) | 1 << 32
}

/// Position of the first word of a record in the file.
fn place(sequence: u64) -> usize {
    WORDS * (1 + ((sequence - 1) % RECORDS) as usize)
}
