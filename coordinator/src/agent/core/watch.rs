//! Whether a worker hangs: a phase that lasts far longer than those of its kind did, or no sign of life.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use longtake_shared::ids::Step;
use longtake_shared::protocol::stamp::StepPhase;

use super::{Doing, Finished, Reading, Terms};

/// Durations of a phase that are remembered.
const REMEMBERED: usize = 64;

/// Durations without which the settings' deadline holds.
const FEWEST: usize = 5;

/// A phase may take this many times the 99th percentile of those remembered...
const FACTOR: u32 = 5;

/// ... and this: a second, less the time until somebody looks ([`super::LOOK`]) and what telling takes.
const MARGIN: Duration = Duration::from_millis(750);

/// A worker that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hang {
    /// What it does.
    pub(super) doing: Doing,
    /// The longest that was expected.
    pub(super) deadline: Duration,
}

/// What was told already, so that it is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It gave no sign of life after this one.
    Frozen { alive: Duration },
    /// What this record says lasted too long.
    Stuck { sequence: u64 },
}

/// What a phase may take, as learned from those of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The 99th percentile of those remembered.
    pub(crate) p99: Duration,
    /// The longest.
    pub(crate) deadline: Duration,
}

/// What is known of one worker's progress.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    durations: BTreeMap<StepPhase, VecDeque<Duration>>,
    doing: Option<Doing>,
    alive: Option<Duration>,
    /// How long the agent itself was stopped while the worker did what it does, and since its last sign of life.
    prolonged: Duration,
    alive_prolonged: Duration,
    told: Option<Told>,
}

impl Watch {
    /// What it does, at the last reading.
    pub(crate) fn doing(&self) -> Option<Doing> {
        self.doing
    }

    /// Takes in a reading. Between two stages a worker does nothing; what a phase took before says nothing about what comes.
    pub(crate) fn read(&mut self, reading: Reading) {
        for Finished { phase, took, resumed } in reading.finished {
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
        if reading.doing != self.doing {
            self.doing = reading.doing;
            self.prolonged = Duration::ZERO;
        }
        if reading.alive != self.alive {
            self.alive = reading.alive;
            self.alive_prolonged = Duration::ZERO;
        }
        let over = match self.told {
            Some(Told::Frozen { alive }) => self.alive != Some(alive),
            Some(Told::Stuck { sequence }) => self.doing.is_some_and(|doing| doing.sequence != sequence),
            None => false,
        };
        if over {
            self.told = None;
        }
    }

    /// The agent itself was stopped, and maybe the worker with it: nobody is blamed for that time.
    pub(super) fn prolong(&mut self, gap: Duration) {
        self.prolonged += gap;
        self.alive_prolonged += gap;
    }

    /// A hang is to be told again.
    pub(super) fn forget_report(&mut self) {
        self.told = None;
    }

    /// Whether it hangs now; each hang is told once.
    pub(super) fn judge(&mut self, now: Duration, terms: &Terms) -> Option<Hang> {
        if self.told.is_some() {
            return None;
        }
        if let Some(alive) = self.alive
            && now.saturating_sub(alive + self.alive_prolonged) > terms.lease
        {
            self.told = Some(Told::Frozen { alive });
            let nothing = Doing { sequence: 0, step: Step(0), phase: StepPhase::Idle, entered_at: alive };
            return Some(Hang { doing: self.doing.unwrap_or(nothing), deadline: terms.lease });
        }
        let doing = self.doing?;
        let deadline = self.deadline(doing.phase, terms)?;
        if now.saturating_sub(doing.entered_at + self.prolonged) <= deadline {
            return None;
        }
        self.told = Some(Told::Stuck { sequence: doing.sequence });
        Some(Hang { doing, deadline })
    }

    /// How long a phase may last; nothing for those in which a worker waits for others.
    fn deadline(&self, phase: StepPhase, terms: &Terms) -> Option<Duration> {
        if waits_for_others(phase) {
            return None;
        }
        Some(self.expected(phase).map_or(terms.phase_deadline, |expected| expected.deadline))
    }

    /// What has been learned of a phase; nothing before enough of it were measured, and for those in which a worker waits.
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

fn waits_for_others(phase: StepPhase) -> bool {
    matches!(phase, StepPhase::Idle | StepPhase::Reduce | StepPhase::Wait)
}
