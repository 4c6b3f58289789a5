//! When a checkpoint is begun: a pure decision, the same on every rank.

use std::time::{Duration, Instant};

use longtake_shared::config::CheckpointConfig;

/// What speaks for a checkpoint at a step boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reasons {
    /// It belongs to this very step: the last one, a validation, a stop. It waits for the one before.
    pub must: bool,
    /// The epoch says so.
    pub due: bool,
    /// Somebody asks for one, or the time is over.
    pub asked: bool,
}

/// When checkpoints are begun in one generation.
#[derive(Debug)]
pub struct Rhythm {
    interval: Option<Duration>,
    since: Instant,
    postponed: bool,
}

impl Rhythm {
    /// Begins to count now.
    pub fn new(config: &CheckpointConfig) -> Self {
        let interval = (config.interval.0 > 0.0).then(|| Duration::from_secs_f64(config.interval.0));
        Self { interval, since: Instant::now(), postponed: false }
    }

    /// Whether the longest time between two checkpoints is over.
    pub fn is_time(&self) -> bool {
        self.interval.is_some_and(|interval| self.since.elapsed() >= interval)
    }

    /// Whether a checkpoint is begun. While one is on its way to the chain, a step does not wait for it: what is due follows.
    pub fn begins(&mut self, reasons: Reasons, saving: bool) -> bool {
        let wanted = reasons.due || self.postponed;
        let begins = reasons.must || (wanted || reasons.asked) && !saving;
        self.postponed = wanted && !begins;
        if begins {
            self.since = Instant::now();
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use longtake_shared::units::Seconds;

    use super::*;

    fn rhythm(interval: f64) -> Rhythm {
        Rhythm::new(&CheckpointConfig { interval: Seconds(interval), ..CheckpointConfig::default() })
    }

    #[test]
    fn what_is_due_while_one_is_on_its_way_follows_and_what_must_be_waits() {
        let due = Reasons { due: true, ..Reasons::default() };
        let mut rhythm = rhythm(0.0);
        assert!(!rhythm.begins(Reasons::default(), false));
        assert!(!rhythm.begins(due, true));
        assert!(!rhythm.begins(Reasons::default(), true));
        assert!(rhythm.begins(Reasons::default(), false), "it was postponed");
        assert!(!rhythm.begins(Reasons::default(), false), "once");
        assert!(rhythm.begins(Reasons { must: true, ..Reasons::default() }, true));
        let asked = Reasons { asked: true, ..Reasons::default() };
        assert!(!rhythm.begins(asked, true) && !rhythm.begins(Reasons::default(), false));
        assert!(rhythm.begins(asked, false));
    }

    #[test]
    fn the_longest_time_counts_from_the_last_one() {
        assert!(!rhythm(0.0).is_time() && !rhythm(3600.0).is_time());
        let mut rhythm = rhythm(3600.0);
        rhythm.interval = Some(Duration::ZERO);
        assert!(rhythm.is_time());
    }
}
