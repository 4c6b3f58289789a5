//! Hang detection: a phase that lasts far longer than earlier phases of its kind, or no sign of life.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use longtake_shared::ids::{Generation, Step};
use longtake_shared::protocol::Terms;
use longtake_shared::protocol::flight::FlightRecord;
use longtake_shared::protocol::stamp::StepPhase;

use super::Reading;

/// Number of latest durations kept for each phase.
const REMEMBERED: usize = 64;

/// Number of durations from which on they replace the configured deadline.
const FEWEST: usize = 5;

/// A phase may last this many times the 99th percentile of its kept durations...
const FACTOR: u32 = 5;

/// ... plus this: one second, minus the time until the next tick ([`super::LOOK`]) and the delivery of the message.
const MARGIN: Duration = Duration::from_millis(750);

/// A worker that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hang {
    /// The record of its current phase.
    pub(super) current: FlightRecord,
    /// The longest duration expected.
    pub(super) deadline: Duration,
}

/// The hang that was reported, so that it is reported once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// No sign of life after this time.
    Frozen { alive: Duration },
    /// The phase of this record lasts too long.
    Stuck { sequence: u64 },
}

/// The expected duration of a phase, from earlier phases of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The 99th percentile of the kept durations.
    pub(crate) p99: Duration,
    /// The longest duration accepted.
    pub(crate) deadline: Duration,
}

/// The observed progress of one worker.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    durations: BTreeMap<StepPhase, VecDeque<Duration>>,
    current: Option<FlightRecord>,
    alive: Option<Duration>,
    /// Time for which the agent itself was suspended since the current phase began, and since the last sign of life.
    prolonged: Duration,
    alive_prolonged: Duration,
    told: Option<Told>,
}

impl Watch {
    /// The record of its current phase at the last reading.
    pub(crate) fn current(&self) -> Option<FlightRecord> {
        self.current
    }

    /// Adds a reading. An idle phase separates two stages, whose durations are not comparable: it clears the kept ones.
    pub(crate) fn read(&mut self, reading: Reading) {
        for FlightRecord { phase, took, resumed, .. } in reading.finished {
            let took = took.unwrap_or_default();
            if phase == StepPhase::Idle {
                self.durations.clear();
                continue;
            }
            let durations = self.durations.entry(phase).or_default();
            if let Some(before) = durations.back_mut().filter(|_| resumed) {
                *before += took;
                continue;
            }
            if durations.len() == REMEMBERED {
                durations.pop_front();
            }
            durations.push_back(took);
        }
        if reading.current != self.current {
            self.current = reading.current;
            self.prolonged = Duration::ZERO;
        }
        if reading.alive != self.alive {
            self.alive = reading.alive;
            self.alive_prolonged = Duration::ZERO;
        }
        let over = match self.told {
            Some(Told::Frozen { alive }) => self.alive != Some(alive),
            Some(Told::Stuck { sequence }) => {
                self.current.is_some_and(|current| current.sequence != sequence)
            }
            None => false,
        };
        if over {
            self.told = None;
        }
    }

    /// The agent itself was suspended, and perhaps the worker with it: this time does not count.
    pub(super) fn prolong(&mut self, gap: Duration) {
        self.prolonged += gap;
        self.alive_prolonged += gap;
    }

    /// Reports the current hang again.
    pub(super) fn forget_report(&mut self) {
        self.told = None;
    }

    /// The hang of the worker, if there is one; each is returned once.
    pub(super) fn judge(&mut self, now: Duration, terms: &Terms) -> Option<Hang> {
        if self.told.is_some() {
            return None;
        }
        if let Some(alive) = self.alive
            && now.saturating_sub(alive + self.alive_prolonged) > terms.lease
        {
            self.told = Some(Told::Frozen { alive });
            return Some(Hang { current: self.current.unwrap_or(idle_since(alive)), deadline: terms.lease });
        }
        let current = self.current?;
        let deadline = self.deadline(current.phase, terms)?;
        if now.saturating_sub(current.entered_at + self.prolonged) <= deadline {
            return None;
        }
        self.told = Some(Told::Stuck { sequence: current.sequence });
        Some(Hang { current, deadline })
    }

    /// The longest accepted duration of a phase; none for phases in which a worker waits for others.
    fn deadline(&self, phase: StepPhase, terms: &Terms) -> Option<Duration> {
        if waits_for_others(phase) {
            return None;
        }
        Some(self.expected(phase).map_or(terms.phase_deadline, |expected| expected.deadline))
    }

    /// The expected duration of a phase; none before enough were measured, and for phases in which a worker waits.
    pub(crate) fn expected(&self, phase: StepPhase) -> Option<Expected> {
        let durations = self.durations.get(&phase).filter(|durations| durations.len() >= FEWEST)?;
        if waits_for_others(phase) {
            return None;
        }
        let mut sorted: Vec<Duration> = durations.iter().copied().collect();
        sorted.sort_unstable();
        // Nearest rank.
        let p99 = sorted[(sorted.len() * 99).div_ceil(100) - 1];
        Some(Expected { p99, deadline: FACTOR * p99 + MARGIN })
    }
}

/// The record of a worker that has not written one.
fn idle_since(entered_at: Duration) -> FlightRecord {
    let (generation, step) = (Generation(0), Step(0));
    let (phase, resumed) = (StepPhase::Idle, false);
    FlightRecord { sequence: 0, generation, step, phase, resumed, entered_at, took: None }
}

fn waits_for_others(phase: StepPhase) -> bool {
    matches!(phase, StepPhase::Idle | StepPhase::Reduce | StepPhase::Wait)
}
