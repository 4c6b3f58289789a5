//! Times of a video as places on the page.

use longtake_shared::units::Seconds;

use super::Segment;

/// Distances of two ticks that people read easily, in seconds.
const STEPS: [f64; 16] =
    [0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0];
const TICKS_MAX: f64 = 12.0;
/// Narrower bars could not be seen.
const SPAN_MIN: f64 = 2.0;

/// The time axis of one panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    duration: f64,
    /// Where the video begins, in pixels.
    pub(super) left: f64,
    /// Where it ends.
    pub(super) right: f64,
}

impl Axis {
    pub(super) fn new(duration: Seconds, left: f64, right: f64) -> Self {
        let duration = if duration.0.is_finite() { duration.0.max(0.1) } else { 0.1 };
        Self { duration, left, right }
    }

    /// The place of a time; what lies outside the video is drawn at its edge.
    pub(super) fn x(&self, time: f64) -> f64 {
        self.left + (time / self.duration).clamp(0.0, 1.0) * (self.right - self.left)
    }

    /// The places of a segment's ends.
    pub(super) fn span(&self, segment: &Segment) -> [f64; 2] {
        let start = self.x(segment.start.0).min(self.right - SPAN_MIN);
        [start, self.x(segment.end.0).max(start + SPAN_MIN)]
    }

    /// Times from the start on, at most a dozen and evenly apart.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let step = self.step();
        let count = (self.duration / step).floor() as u32;
        (0..=count).map(|index| f64::from(index) * step).collect()
    }

    fn step(&self) -> f64 {
        let fits = |step: &f64| self.duration / step <= TICKS_MAX;
        STEPS.iter().copied().find(fits).unwrap_or(self.duration / TICKS_MAX)
    }

    /// A tick in words: seconds in a short video, minutes and seconds in a long one.
    pub(super) fn label(&self, time: f64) -> String {
        if self.duration < 60.0 {
            return format!("{time} s");
        }
        clock(time)
    }
}

/// The length of a video in words.
pub(super) fn length(duration: Seconds) -> String {
    if duration.0 < 60.0 { format!("{:.1} s", duration.0) } else { format!("{} min", clock(duration.0)) }
}

fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_a_dozen_ticks_at_most_at_round_times() {
        for (duration, last, label) in
            [(3.2, 3.0, "3 s"), (29.0, 25.0, "25 s"), (200.0, 180.0, "3:00"), (7300.0, 7200.0, "2:00:00")]
        {
            let axis = Axis::new(Seconds(duration), 0.0, 100.0);
            let ticks = axis.ticks();
            assert!((5..=13).contains(&ticks.len()), "{duration}: {ticks:?}");
            assert_eq!(ticks.last().copied(), Some(last));
            assert_eq!(axis.label(last), label);
        }
    }

    #[test]
    fn times_outside_the_video_stay_on_the_page() {
        for duration in [10.0, 0.0, f64::NAN] {
            let axis = Axis::new(Seconds(duration), 50.0, 150.0);
            let segment = Segment { label: String::new(), start: Seconds(-5.0), end: Seconds(1e9) };
            assert_eq!(axis.span(&segment), [50.0, 150.0]);
        }
    }
}
