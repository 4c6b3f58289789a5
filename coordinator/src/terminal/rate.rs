//! How fast work goes and when it will be done, from counts and times; no clock of its own.

use longtake_shared::units::Seconds;

/// What lies this far back counts half.
const HALF_LIFE: f64 = 20.0;

/// A rate that forgets: old units and old seconds fade alike, so that the first estimate is already the mean so far.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    units: f64,
    seconds: f64,
    last: Option<(u64, Seconds)>,
}

impl Rate {
    /// `done` units are done at `elapsed`, counted from the same moment as before.
    pub fn observe(&mut self, done: u64, elapsed: Seconds) {
        if let Some((done_before, elapsed_before)) = self.last {
            let seconds = elapsed.0 - elapsed_before.0;
            if done < done_before || seconds < 0.0 {
                self.pause();
            } else {
                // What was done within a long interval has itself half faded at its end: the integral of the decay.
                let fade = 0.5f64.powf(seconds / HALF_LIFE);
                let weight = (1.0 - fade) * HALF_LIFE / std::f64::consts::LN_2;
                if seconds > 0.0 {
                    self.units = self.units * fade + (done - done_before) as f64 / seconds * weight;
                    self.seconds = self.seconds * fade + weight;
                }
            }
        }
        self.last = Some((done, elapsed));
    }

    /// The time until the next observation does not count.
    pub fn pause(&mut self) {
        self.last = None;
    }

    /// Units a second; nothing before the first two observations.
    pub fn per_second(&self) -> Option<f64> {
        (self.units > 0.0 && self.seconds > 0.0).then(|| self.units / self.seconds)
    }

    /// How long `remaining` units will take.
    pub fn eta(&self, remaining: u64) -> Option<Seconds> {
        self.per_second().map(|rate| Seconds(remaining as f64 / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(observations: &[(u64, f64)]) -> Rate {
        let mut rate = Rate::default();
        for (done, elapsed) in observations {
            rate.observe(*done, Seconds(*elapsed));
        }
        rate
    }

    fn close(rate: Option<f64>, expected: f64) -> bool {
        rate.is_some_and(|rate| (rate - expected).abs() < 1e-9)
    }

    #[test]
    fn a_steady_rate_is_found_at_once() {
        assert_eq!(after(&[(0, 0.0)]).per_second(), None);
        assert!(close(after(&[(0, 0.0), (4, 2.0)]).per_second(), 2.0));
        let steady: Vec<(u64, f64)> = (0..200u32).map(|n| (u64::from(n) * 2, f64::from(n))).collect();
        let rate = after(&steady);
        assert!(close(rate.per_second(), 2.0));
        assert!((rate.eta(60).unwrap().0 - 30.0).abs() < 1e-9);
    }

    #[test]
    fn a_change_of_pace_is_followed_within_a_minute() {
        let mut rate = after(&[(0, 0.0), (1000, 1000.0)]);
        for second in 1..=60u32 {
            rate.observe(1000 + u64::from(second) * 10, Seconds(1000.0 + f64::from(second)));
        }
        assert!(rate.per_second().unwrap() > 8.0);
    }

    #[test]
    fn resumed_work_and_pauses_do_not_count_as_speed() {
        let mut rate = after(&[(500, 0.0), (510, 5.0)]);
        assert!(close(rate.per_second(), 2.0));
        rate.pause();
        rate.observe(510, Seconds(300.0));
        assert!(close(rate.per_second(), 2.0));
        rate.observe(3, Seconds(301.0));
        assert!(close(rate.per_second(), 2.0), "a count that falls starts again");
    }
}
