//! How often, and after which pauses, an operation on an object is tried again.

use std::time::Duration;

/// Pauses that grow by a factor, up to a limit. A pause is a function of the attempt and of the object's name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// Longest pause before the second attempt.
    pub first: Duration,
    /// What a pause is multiplied by for the next one.
    pub factor: f64,
    /// Longest pause of all.
    pub longest: Duration,
    /// How long an attempt may go without an answer; writing many bytes is given more, see [`Self::patience_for`].
    pub patience: Duration,
}

/// Bytes a second that a write is expected to reach at least.
const SLOWEST: u64 = 1 << 20;

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            // The pauses add up to about half a minute: long enough for a store that asks to slow down or fails over.
            attempts: 8,
            first: Duration::from_millis(100),
            factor: 3.0,
            longest: Duration::from_secs(10),
            patience: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// One attempt, no pause.
    pub const ONCE: Self = Self::without_pauses(1);

    /// So many attempts, one right after the other.
    pub const fn without_pauses(attempts: u32) -> Self {
        let pause = Duration::ZERO;
        Self { attempts, first: pause, factor: 1.0, longest: pause, patience: Duration::from_secs(30) }
    }

    /// How long an attempt that writes so many bytes may take.
    pub fn patience_for(&self, bytes: u64) -> Duration {
        self.patience + Duration::from_secs(bytes / SLOWEST)
    }

    /// The pause after `attempts` failed attempts; nothing where it is time to give up.
    ///
    /// Between half the pause and all of it, by the object's name, so that many workers that were turned away together
    /// do not come back together.
    pub fn delay(&self, attempts: u32, object: &str) -> Option<Duration> {
        if attempts >= self.attempts {
            return None;
        }
        let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let full = (self.first.as_secs_f64() * self.factor.powi(exponent)).min(self.longest.as_secs_f64());
        let spread = f64::from(blake3::hash(object.as_bytes()).as_bytes()[0]) / 255.0;
        Some(Duration::try_from_secs_f64(full * 0.5 * (1.0 + spread)).unwrap_or(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_limit_and_end() {
        let policy = RetryPolicy {
            attempts: 6,
            first: Duration::from_millis(100),
            factor: 4.0,
            longest: Duration::from_secs(2),
            ..RetryPolicy::default()
        };
        let pauses: Vec<Duration> = (1..6).map(|attempt| policy.delay(attempt, "part").unwrap()).collect();
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
        assert!(pauses[0] >= Duration::from_millis(50) && pauses[0] <= Duration::from_millis(100));
        assert!(pauses[4] <= Duration::from_secs(2));
        assert_eq!(policy.delay(6, "part"), None);
        assert_eq!(RetryPolicy::ONCE.delay(1, "part"), None);
    }
}
