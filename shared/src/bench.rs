//! Benchmarks as values: how long something takes, and how that compares with a peer that was measured beside it.

/// An evaluation of made-up detections.
pub mod map;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::units::Seconds;

/// What was measured, as one line of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What.
    pub name: String,
    /// How often.
    pub runs: usize,
    /// Half of the runs took at most so long.
    pub median: Seconds,
    /// 99 of 100 runs took at most so long.
    pub p99: Seconds,
    /// What it is compared with.
    pub peer: Option<Peer>,
}

/// What does the same in another way, measured in the same run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// What.
    pub name: String,
    /// Half of its runs took at most so long.
    pub median: Seconds,
    /// Our median over its.
    pub ratio: f64,
}

/// How long each run of something took.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// So many runs of something.
    pub fn of(runs: usize, mut work: impl FnMut()) -> Self {
        let mut times = Self::default();
        for _ in 0..runs {
            times.measure(&mut work);
        }
        times
    }

    /// Does something and notes how long it took.
    pub fn measure<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.push(begun.elapsed());
        result
    }

    /// Notes a run.
    pub fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// The line of a table.
    pub fn row(&self, name: impl Into<String>) -> Row {
        Row {
            name: name.into(),
            runs: self.0.len(),
            median: self.at_most(0.5),
            p99: self.at_most(0.99),
            peer: None,
        }
    }

    /// The same, with a peer beside it.
    pub fn row_beside(&self, name: impl Into<String>, peer: &str, times: &Self) -> Row {
        let row = self.row(name);
        let median = times.at_most(0.5);
        let ratio = row.median.0 / median.0;
        Row { peer: Some(Peer { name: peer.to_owned(), median, ratio }), ..row }
    }

    /// How long this part of the runs took at most; 0 without any.
    fn at_most(&self, part: f64) -> Seconds {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (part * sorted.len() as f64).ceil() as usize;
        Seconds(sorted.get(place.saturating_sub(1)).map_or(0.0, Duration::as_secs_f64))
    }
}

/// Rows below each other for people, each time in the unit that suits it.
pub fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let mut text = format!("{:<width$}  {:>5}  {:>9}  {:>9}\n", "", "runs", "median", "p99");
    for row in rows {
        let (median, p99) = (legible(row.median), legible(row.p99));
        let _ = write!(text, "{:<width$}  {:>5}  {median:>9}  {p99:>9}", row.name, row.runs);
        if let Some(peer) = &row.peer {
            let _ = write!(text, "  {:.2} x {} ({})", peer.ratio, peer.name, legible(peer.median));
        }
        text.push('\n');
    }
    text
}

/// With three or more digits.
fn legible(time: Seconds) -> String {
    let (value, unit) = match time.0 {
        seconds if seconds >= 1.0 => (seconds, "s"),
        seconds if seconds >= 1e-3 => (seconds * 1e3, "ms"),
        seconds => (seconds * 1e6, "us"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(micros: impl IntoIterator<Item = u64>) -> Times {
        Times(micros.into_iter().map(Duration::from_micros).collect())
    }

    #[test]
    fn median_and_p99_are_runs_that_took_place() {
        let row = times((1..=200).rev()).row("all");
        assert_eq!((row.runs, row.median, row.p99), (200, Seconds(100e-6), Seconds(198e-6)));
        assert_eq!(times([7]).row("one").p99, Seconds(7e-6));
        assert_eq!(times([]).row("none").median, Seconds(0.0));
    }

    #[test]
    fn a_table_names_the_peer_and_the_ratio() {
        let rows = [
            times([250]).row_beside("read", "a map", &times([100])),
            times([1_234_000, 1_300_000, 5_000]).row("launch"),
        ];
        assert_eq!(
            table(&rows),
            "         runs     median        p99\n\
             read        1     250 us     250 us  2.50 x a map (100 us)\n\
             launch      3     1.23 s     1.30 s\n"
        );
    }
}
