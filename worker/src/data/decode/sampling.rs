//! Which source frame is shown at which position of a constant frame rate.
//!
//! The rule is that of ffmpeg's `fps` filter, and so of the reference's frame extraction: position k shows the last source
//! frame whose presentation time, times the rate, rounded to the nearest integer (halves up), is at most k plus that of the
//! first frame. Position 0 thus shows the first frame, however late the file shows it.

/// A frame rate as a fraction, so that positions are exact integers however long the video is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::data) struct Rate {
    numerator: i128,
    denominator: i128,
}

/// Largest frame rate that is accepted, in frames a second.
const MAX_RATE: f64 = 1000.0;

impl Rate {
    /// Nearest simple fraction: n/1, n/1000 or the television rates n * 1000/1001. `None` unless 0 < rate <= 1000.
    pub(in crate::data) fn from_fps(fps: f64) -> Option<Self> {
        if !(fps > 0.0 && fps <= MAX_RATE) {
            return None;
        }
        for denominator in [1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 10.0, 100.0, 1000.0] {
            let numerator = fps * denominator;
            if (numerator - numerator.round()).abs() < 1e-9 * numerator && numerator.round() >= 1.0 {
                return Some(Self { numerator: numerator.round() as i128, denominator: denominator as i128 });
            }
        }
        let television = (fps * 1.001).round();
        if television >= 1.0 && (television / 1.001 - fps).abs() < 1e-6 {
            return Some(Self { numerator: television as i128 * 1000, denominator: 1001 });
        }
        Some(Self { numerator: ((fps * 1e6).round() as i128).max(1), denominator: 1_000_000 })
    }
}

impl Rate {
    /// Frames in so many seconds; `None` where the numbers are too large for a file's header.
    pub(in crate::data) fn fraction(self) -> Option<(u32, u32)> {
        Some((u32::try_from(self.numerator).ok()?, u32::try_from(self.denominator).ok()?))
    }
}

/// When each frame of a video is shown, in ticks of the stream's clock after the start of the file, in presentation order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timeline {
    /// Length of a tick is `tick.0 / tick.1` seconds.
    pub(super) tick: (u32, u32),
    /// Presentation times, ascending.
    pub(super) times: Vec<i64>,
    /// When the last frame ends.
    pub(super) end: i64,
}

impl Timeline {
    fn first(&self) -> i64 {
        self.times.first().copied().unwrap_or(0)
    }

    /// Length in seconds, from the first frame to the end of the last one.
    pub(super) fn seconds(&self) -> f64 {
        self.in_seconds(self.end.saturating_sub(self.first()).max(0))
    }

    /// When a frame is shown, in seconds after the first one.
    pub(super) fn second(&self, frame: usize) -> f64 {
        self.in_seconds(self.times[frame].saturating_sub(self.first()))
    }

    fn in_seconds(&self, ticks: i64) -> f64 {
        ticks as f64 * f64::from(self.tick.0) / f64::from(self.tick.1)
    }

    /// Number of positions at a rate.
    pub(super) fn sampled_length(&self, rate: Rate) -> usize {
        if self.times.is_empty() {
            return 0;
        }
        usize::try_from(self.position(self.end, rate) - self.position(self.first(), rate)).unwrap_or(0)
    }

    /// The source frame shown at position `k`.
    pub(super) fn source(&self, k: usize, rate: Rate) -> usize {
        let at = self.position(self.first(), rate) + k as i128;
        self.times.partition_point(|&time| self.position(time, rate) <= at).saturating_sub(1)
    }

    fn position(&self, time: i64, rate: Rate) -> i128 {
        let numerator = i128::from(time) * i128::from(self.tick.0) * rate.numerator;
        let denominator = i128::from(self.tick.1) * rate.denominator;
        // Halves away from zero (AV_ROUND_NEAR_INF).
        let rounded = (2 * numerator.abs() + denominator) / (2 * denominator);
        if numerator < 0 { -rounded } else { rounded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(tick: (u32, u32), times: Vec<i64>, end: i64) -> Timeline {
        Timeline { tick, times, end }
    }

    #[test]
    fn thirty_to_fifteen_takes_every_second_frame_but_the_first_twice_as_soon() {
        // round(k / 2): 0, 1, 1, 2, 2, ...: position 0 shows frame 0, position 1 frame 2, position 2 frame 4.
        let video = timeline((1, 30), (0..300).collect(), 300);
        let rate = Rate::from_fps(15.0).unwrap();
        assert_eq!(video.sampled_length(rate), 150);
        assert_eq!((0..4).map(|k| video.source(k, rate)).collect::<Vec<_>>(), [0, 2, 4, 6]);
    }

    #[test]
    fn the_own_rate_of_a_television_video_is_the_identity() {
        let video = timeline((1001, 24000), (0..240).collect(), 240);
        let rate = Rate::from_fps(24000.0 / 1001.0).unwrap();
        assert_eq!(video.sampled_length(rate), 240);
        assert!((0..240).all(|k| video.source(k, rate) == k));
    }

    #[test]
    fn rates_are_the_fractions_people_mean() {
        assert_eq!(Rate::from_fps(7.5), Some(Rate { numerator: 15, denominator: 2 }));
        assert_eq!(Rate::from_fps(29.97), Some(Rate { numerator: 2997, denominator: 100 }));
        assert_eq!(
            Rate::from_fps(30000.0 / 1001.0),
            Some(Rate { numerator: 30_000_000, denominator: 1_001_000 }.reduced())
        );
        for fps in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert_eq!(Rate::from_fps(fps), None);
        }
    }

    #[test]
    fn a_gap_shows_the_last_frame_before_it() {
        let video = timeline((1, 10), vec![0, 1, 2, 50, 51], 52);
        let rate = Rate::from_fps(10.0).unwrap();
        assert_eq!(video.sampled_length(rate), 52);
        assert_eq!((video.source(2, rate), video.source(49, rate), video.source(50, rate)), (2, 2, 3));
    }

    #[test]
    fn a_video_that_starts_late_is_sampled_from_its_first_frame_on() {
        // 150 frames at 30 a second from 1.03 s on: 1.03 * 12.5 = 12.9 becomes 13, the end 6.03 * 12.5 = 75.4 becomes 75.
        let video = timeline((1, 3000), (0..150).map(|k| 3090 + k * 100).collect(), 3090 + 15_000);
        let length = |fps| video.sampled_length(Rate::from_fps(fps).unwrap());
        assert_eq!((length(15.0), length(30.0), length(25.0), length(12.5)), (75, 150, 125, 62));
        // Frame 1 is shown from round(1.063 * 12.5) = 13 on, as frame 0 is; frame 147, at 5.93 s, from 74 on.
        let rate = Rate::from_fps(12.5).unwrap();
        assert_eq!((video.source(0, rate), video.source(61, rate)), (1, 147));
        assert!((video.seconds() - 5.0).abs() < 1e-9);
    }

    impl Rate {
        fn reduced(self) -> Self {
            Self { numerator: self.numerator / 1000, denominator: self.denominator / 1000 }
        }
    }
}
