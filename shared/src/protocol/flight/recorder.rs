//! Writing a flight recorder.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::mapped::MappedWords;
use super::{FILE_BYTES, FlightRecord, MAGIC, StepPhase, encode, header, nanoseconds, now, place};
use crate::ids::{Generation, Step};

/// Time between two signs of life until the agent sets it.
const BEAT: Duration = Duration::from_millis(200);

/// A flight recorder, open for writing. The training thread enters phases; the session's thread gives signs of life.
#[derive(Debug)]
pub struct Recorder {
    words: MappedWords,
    /// Sequence number of the next record.
    next: AtomicU64,
    /// Step and phase of the newest record.
    step: AtomicU64,
    phase: AtomicU64,
}

impl Recorder {
    /// Opens the file that the agent has created for this process.
    ///
    /// # Errors
    /// The file is missing, is not a flight recorder, or cannot be mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let words = MappedWords::of_file(&file, FILE_BYTES / 8)?;
        if words.word(header::MAGIC).load(Ordering::Relaxed) != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a flight recorder"));
        }
        let newest = words.word(header::NEWEST).load(Ordering::Relaxed);
        words.word(header::PID).store(u64::from(std::process::id()), Ordering::Relaxed);
        let (step, phase) = (AtomicU64::new(0), AtomicU64::new(StepPhase::Idle as u64));
        let recorder = Self { words, next: AtomicU64::new(newest + 1), step, phase };
        // So a process that freezes at once is noticed too.
        recorder.beat();
        Ok(recorder)
    }

    /// Records that a phase begins now.
    pub fn enter(&self, generation: Generation, step: Step, phase: StepPhase) {
        self.record(generation, step, phase, false);
    }

    /// Records that a phase continues now, after another phase within it.
    pub fn resume(&self, generation: Generation, step: Step, phase: StepPhase) {
        self.record(generation, step, phase, true);
    }

    fn record(&self, generation: Generation, step: Step, phase: StepPhase, resumed: bool) {
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        let record =
            FlightRecord { sequence, generation, step, phase, resumed, entered_at: now(), took: None };
        let first = place(sequence);
        for (offset, word) in encode(&record).into_iter().enumerate() {
            self.words.word(first + offset).store(word, Ordering::Relaxed);
        }
        self.words.word(header::NEWEST).fetch_max(sequence, Ordering::Release);
        self.step.store(step.0, Ordering::Relaxed);
        self.phase.store(phase as u64, Ordering::Relaxed);
    }

    /// Step and phase of the newest record.
    pub fn current(&self) -> (Step, StepPhase) {
        let phase = StepPhase::numbered(self.phase.load(Ordering::Relaxed)).unwrap_or(StepPhase::Idle);
        (Step(self.step.load(Ordering::Relaxed)), phase)
    }

    /// Records that a waiting phase begins now, unless it is the current one.
    pub fn turn_to(&self, generation: Generation, phase: StepPhase) {
        let (step, current) = self.current();
        if phase != current {
            self.enter(generation, step, phase);
        }
    }

    /// Counts a wait of the training thread for an order, or a possible wait for room in the message queue.
    pub fn awaits_control(&self) {
        self.words.word(header::AWAITED).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message to the agent.
    pub fn says(&self) {
        self.words.word(header::SAID).fetch_add(1, Ordering::Relaxed);
    }

    /// Gives a sign of life.
    pub fn beat(&self) {
        self.words.word(header::ALIVE).store(nanoseconds(now()), Ordering::Release);
    }

    /// Time until the next sign of life; the agent may change it at any time.
    pub fn beat_period(&self) -> Duration {
        match self.words.word(header::BEAT).load(Ordering::Relaxed) {
            0 => BEAT,
            nanoseconds => Duration::from_nanos(nanoseconds),
        }
    }
}
