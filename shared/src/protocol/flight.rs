//! A worker's flight recorder: what it did last, in a file that outlives it. The worker writes, its agent and `longtake flight` read.
//!
//! ```text
//! <run>/flight/worker-<index>.ring     header (64 B) | 4096 records of 64 B, the newest over the oldest
//! <run>/flight/worker-<index>.earlier  the same of the process before it
//! ```
//!
//! The worker's file is mapped into its memory, so a record costs some stores and no system call, and the kernel keeps what
//! a killed process has stored. Readers use plain reads. A record that was caught half written does not check and is left
//! out. All times are those of [`crate::protocol::flight::now`], which no change of the clock touches; the header says what
//! they are since the Unix epoch.

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

/// Records of a ring: a training step has some ten.
pub const RECORDS: u64 = 4096;

/// Words of the header, and of a record.
const WORDS: usize = 8;

/// Bytes of the header, and of a record.
const BLOCK_BYTES: usize = 8 * WORDS;

/// Bytes of a ring's file.
const FILE_BYTES: usize = BLOCK_BYTES * (RECORDS as usize + 1);

/// `ltflight` in the byte order of the machine, and with it the order of all that follows.
const MAGIC: u64 = u64::from_be_bytes(*b"ltflight");

/// The words of the header.
mod header {
    /// [`super::MAGIC`].
    pub(super) const MAGIC: usize = 0;
    /// What [`super::now`] was at the Unix epoch, negated: nanoseconds.
    pub(super) const ANCHOR: usize = 1;
    /// Nanoseconds between two signs of life; written by the agent, also later.
    pub(super) const BEAT: usize = 2;
    /// The process that writes.
    pub(super) const PID: usize = 3;
    /// Its last sign of life.
    pub(super) const ALIVE: usize = 4;
    /// Sequence of the newest record; a record is written before it is named here.
    pub(super) const NEWEST: usize = 5;
    /// How often the training thread has waited for control.
    pub(super) const AWAITED: usize = 6;
    /// Messages that it has said.
    pub(super) const SAID: usize = 7;
}

/// One thing that a worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlightRecord {
    /// Its place among all records of the process, from 1.
    pub sequence: u64,
    /// The generation it was done for; 0 before there was one.
    pub generation: Generation,
    /// Steps of the stage done before.
    pub step: Step,
    /// What was done.
    pub phase: StepPhase,
    /// It goes on with what it had begun before something else within it: the newest record of that phase and this one are
    /// parts of one.
    pub resumed: bool,
    /// When it began, in the time of [`now`].
    pub entered_at: Duration,
    /// How long it took; nothing for the newest, which goes on, or did when the process ended.
    pub took: Option<Duration>,
}

/// The time of flight recorders: monotonic, and the same in all processes of a machine.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Where the ring of a worker lies.
pub fn path(run_folder: &Path, index: u32) -> PathBuf {
    run_folder.join("flight").join(format!("worker-{index}.ring"))
}

/// Where the ring of the process before it lies.
pub fn earlier(path: &Path) -> PathBuf {
    path.with_extension("earlier")
}

/// What [`now`] was at the Unix epoch, negated.
fn anchor() -> Duration {
    // A clock before 1970 makes times of day useless, never the order of records.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    clock.saturating_sub(now())
}

fn nanoseconds(time: Duration) -> u64 {
    // Lasts for 584 years.
    time.as_nanos() as u64
}

/// In the word of the phase: the record goes on with it.
const RESUMED: u64 = 1 << 8;

/// A record as it lies in the file: sequence, generation, step, phase, entered_at, checksum of those.
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

/// Nothing where the record was caught half written, or is none.
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

/// Finds records of which only some words were stored; it need not withstand more.
fn checksum(words: &[u64; WORDS]) -> u64 {
    let mut bytes = [0; 40];
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    // Never 0, which is what a file's untouched part holds.
    u64::from(crc32fast::hash(&bytes)) | 1 << 32
}

/// The first word of a record's place in the file.
fn place(sequence: u64) -> usize {
    WORDS * (1 + ((sequence - 1) % RECORDS) as usize)
}
