//! The worker's side of its ring.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::mapped::MappedWords;
use super::{FILE_BYTES, FlightRecord, MAGIC, StepPhase, encode, header, nanoseconds, now, place};
use crate::ids::{Generation, Step};

/// Between two signs of life where the agent has not said.
const BEAT: Duration = Duration::from_millis(200);

/// A worker's ring, open for writing. The training thread enters phases, another tells that the process lives.
#[derive(Debug)]
pub struct Recorder {
    words: MappedWords,
    /// Sequence of the next record.
    next: AtomicU64,
    /// Step and phase of the newest record.
    step: AtomicU64,
    phase: AtomicU64,
}

impl Recorder {
    /// Opens the ring that the agent has made for this process.
    ///
    /// # Errors
    /// There is none, or it cannot be mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let words = MappedWords::of_file(&file, FILE_BYTES / 8)?;
        if words.word(header::MAGIC).load(Ordering::Relaxed) != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a flight recorder's ring"));
        }
        let newest = words.word(header::NEWEST).load(Ordering::Relaxed);
        words.word(header::PID).store(u64::from(std::process::id()), Ordering::Relaxed);
        let (step, phase) = (AtomicU64::new(0), AtomicU64::new(StepPhase::Idle as u64));
        let recorder = Self { words, next: AtomicU64::new(newest + 1), step, phase };
        // Who is stopped before it has said anything else is noticed all the same.
        recorder.beat();
        Ok(recorder)
    }

    /// A phase begins now.
    pub fn enter(&self, generation: Generation, step: Step, phase: StepPhase) {
        self.record(generation, step, phase, false);
    }

    /// A phase goes on now, after something that was done within it.
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

    /// Step and phase that were entered last.
    pub fn current(&self) -> (Step, StepPhase) {
        let phase = StepPhase::numbered(self.phase.load(Ordering::Relaxed)).unwrap_or(StepPhase::Idle);
        (Step(self.step.load(Ordering::Relaxed)), phase)
    }

    /// The process turns to a phase in which nobody expects anything of it. Costs nothing where it is in it already.
    pub fn turn_to(&self, generation: Generation, phase: StepPhase) {
        let (step, current) = self.current();
        if phase != current {
            self.enter(generation, step, phase);
        }
    }

    /// The training thread waits for control, or may have to: for an order, or for room for a message.
    pub fn awaits_control(&self) {
        self.words.word(header::AWAITED).fetch_add(1, Ordering::Relaxed);
    }

    /// It has said something to its agent.
    pub fn says(&self) {
        self.words.word(header::SAID).fetch_add(1, Ordering::Relaxed);
    }

    /// A sign of life.
    pub fn beat(&self) {
        self.words.word(header::ALIVE).store(nanoseconds(now()), Ordering::Release);
    }

    /// How long until the next one is due; the agent may change it at any time.
    pub fn beat_period(&self) -> Duration {
        match self.words.word(header::BEAT).load(Ordering::Relaxed) {
            0 => BEAT,
            nanoseconds => Duration::from_nanos(nanoseconds),
        }
    }
}
