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
    /// What each of the runs was to keep to.
    pub bound: Option<Bound>,
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

/// The longest that a run should take, where that is another time in each of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// How it is made up.
    pub name: String,
    /// In half of the runs it was at most this.
    pub median: Seconds,
    /// Runs that have kept to theirs.
    pub kept: usize,
}

/// What was counted, as one line of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// What.
    pub name: String,
    /// How often it was met.
    pub count: u64,
    /// Steps in which it was looked for.
    pub steps: u64,
}

/// All that a benchmark has found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// Times.
    pub rows: Vec<Row>,
    /// Counts.
    pub counts: Vec<Count>,
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
            bound: None,
        }
    }

    /// The same, with a peer beside it.
    pub fn row_beside(&self, name: impl Into<String>, peer: &str, times: &Self) -> Row {
        let row = self.row(name);
        let median = times.at_most(0.5);
        let ratio = row.median.0 / median.0;
        Row { peer: Some(Peer { name: peer.to_owned(), median, ratio }), ..row }
    }

    /// The same, beside the longest that each of the runs should have taken: the bounds are in the order of the runs.
    pub fn row_within(&self, name: impl Into<String>, bound: &str, bounds: &Self) -> Row {
        let kept = self.0.iter().zip(&bounds.0).filter(|(took, bound)| took <= bound).count();
        let bound = Bound { name: bound.to_owned(), median: bounds.at_most(0.5), kept };
        Row { bound: Some(bound), ..self.row(name) }
    }

    /// How long this part of the runs took at most; 0 without any.
    fn at_most(&self, part: f64) -> Seconds {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (part * sorted.len() as f64).ceil() as usize;
        Seconds(sorted.get(place.saturating_sub(1)).map_or(0.0, Duration::as_secs_f64))
    }
}

/// Runs from which the 99th percentile need not be the longest of them.
const MANY: usize = 100;

/// Rows below each other for people, each time in the unit that suits it.
pub fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let mut text = format!("{:<width$}  {:>5}  {:>9}  {:>9}", "", "runs", "median", "p99");
    if rows.iter().any(|row| row.runs < MANY) {
        let _ = write!(text, "  (of fewer than {MANY} runs, p99 is the longest)");
    }
    text.push('\n');
    for row in rows {
        let (median, p99) = (legible(row.median), legible(row.p99));
        let _ = write!(text, "{:<width$}  {:>5}  {median:>9}  {p99:>9}", row.name, row.runs);
        if let Some(peer) = &row.peer {
            let _ = write!(text, "  {:.2} x {} ({})", peer.ratio, peer.name, legible(peer.median));
        }
        if let Some(Bound { name, median, kept }) = &row.bound {
            let _ = write!(text, "  {kept} of {} within {name} ({})", row.runs, legible(*median));
        }
        text.push('\n');
    }
    text
}

impl Findings {
    /// For people: times, then counts.
    pub fn table(&self) -> String {
        let mut text = if self.rows.is_empty() { String::new() } else { table(&self.rows) };
        let width = self.counts.iter().map(|count| count.name.chars().count()).max().unwrap_or(0);
        for Count { name, count, steps } in &self.counts {
            let each = *count as f64 / (*steps).max(1) as f64;
            let _ = writeln!(text, "{name:<width$}  {count} in {steps} steps, {each:.2} a step");
        }
        text
    }
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
            "         runs     median        p99  (of fewer than 100 runs, p99 is the longest)\n\
             read        1     250 us     250 us  2.50 x a map (100 us)\n\
             launch      3     1.23 s     1.30 s\n"
        );
    }
    #[test]
    fn a_table_says_how_many_runs_kept_to_their_bounds_and_counts_by_the_step() {
        let noticed = times([1_100_000, 1_300_000]).row_within("hang", "the aim", &times([1_200_000; 2]));
        let count = |name: &str, count| Count { name: name.into(), count, steps: 40 };
        let findings = Findings { rows: vec![noticed], counts: vec![count("waits", 0), count("notes", 41)] };
        assert_eq!(
            findings.table(),
            "       runs     median        p99  (of fewer than 100 runs, p99 is the longest)\n\
             hang      2     1.10 s     1.30 s  1 of 2 within the aim (1.20 s)\n\
             waits  0 in 40 steps, 0.00 a step\n\
             notes  41 in 40 steps, 1.02 a step\n"
        );
        assert!(!table(&[times(1..=100).row("many")]).contains("longest"));
    }
}
