//! `longtake flight`: what each worker of a run did last, from its flight recorder; the run may be dead.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::protocol::flight::{self, Flight, FlightLog, FlightRecord};
use longtake_shared::units::{Seconds, counted};
use serde::Serialize;
use serde_json::json;

use super::Session;
use super::run_folder::RunFolder;
use crate::cli::FlightArgs;

/// What one worker process did last.
#[derive(Debug, Serialize)]
struct WorkerFlight {
    /// Which worker of the run.
    worker: u32,
    /// It is the process before the newest of that index.
    earlier: bool,
    /// Its process.
    pid: Option<u32>,
    /// Its last sign of life, since the Unix epoch.
    alive: Option<Seconds>,
    /// Records that were caught half written.
    torn: usize,
    /// Oldest first.
    records: Vec<Entry>,
}

/// A record, with its time since the Unix epoch.
#[derive(Debug, Serialize)]
struct Entry {
    #[serde(flatten)]
    record: FlightRecord,
    at: Seconds,
}

pub(super) fn run(args: &FlightArgs, session: &Session) -> Result<ExitCode, Failure> {
    let mut workers = Vec::new();
    for (index, earlier, path) in rings(&args.run, args.worker) {
        let flight = FlightLog::open(&path).and_then(|log| log.read()).map_err(|error| {
            Failure::new(format!("the flight recorder `{}` cannot be read: {error}", path.display()))
        })?;
        workers.push(of_ring(index, earlier, &flight, args.last));
    }
    if workers.is_empty() {
        RunFolder(args.run.clone()).require()?;
        let run = args.run.display();
        let mut others: Vec<String> =
            rings(&args.run, None).into_iter().map(|(index, _, _)| index.to_string()).collect();
        others.dedup();
        return Err(match args.worker.filter(|_| !others.is_empty()) {
            Some(index) => {
                Failure::new(format!("the run in `{run}` has recorded nothing of a worker {index}"))
                    .hint(format!("it has recorded: {}", others.join(", ")))
                    .never_restart()
            }
            None => {
                Failure::new(format!("the run in `{run}` has recorded nothing: no worker of it has started"))
                    .hint("the recorder is there as soon as workers train")
            }
        });
    }
    let text: Vec<String> = workers.iter().map(text).collect();
    session.console.result(&text.join("\n"), &json!({ "workers": workers }))?;
    Ok(ExitCode::Done)
}

/// The rings of a run, by index, of earlier processes first.
fn rings(run: &Path, worker: Option<u32>) -> Vec<(u32, bool, PathBuf)> {
    let folder = flight::path(run, 0);
    let entries = folder.parent().map(std::fs::read_dir);
    let mut rings: Vec<(u32, bool, PathBuf)> = entries
        .into_iter()
        .flatten()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let index = path.file_stem()?.to_str()?.strip_prefix("worker-")?.parse().ok()?;
            let newest = flight::path(run, index);
            (path == newest || path == flight::earlier(&newest)).then(|| (index, path != newest, path))
        })
        .filter(|(index, _, _)| worker.is_none_or(|wanted| wanted == *index))
        .collect();
    rings.sort_by_key(|(index, earlier, _)| (*index, !earlier));
    rings
}

fn of_ring(worker: u32, earlier: bool, flight: &Flight, last: usize) -> WorkerFlight {
    let since_epoch = |time: Duration| Seconds((flight.anchor + time).as_secs_f64());
    let skip = flight.records.len().saturating_sub(last);
    let records = flight.records[skip..]
        .iter()
        .map(|record| Entry { record: *record, at: since_epoch(record.entered_at) })
        .collect();
    WorkerFlight {
        worker,
        earlier,
        pid: flight.pid,
        alive: flight.alive.map(since_epoch),
        torn: flight.torn,
        records,
    }
}

fn text(flight: &WorkerFlight) -> String {
    let mut text = format!("worker {}", flight.worker);
    if flight.earlier {
        text.push_str(", the process before");
    }
    if let Some(pid) = flight.pid {
        let _ = write!(text, ", process {pid}");
    }
    if let Some(alive) = flight.alive {
        let _ = write!(text, ", last sign of life {} UTC", time_of_day(alive));
    }
    if flight.torn > 0 {
        let _ = write!(text, ", {} torn", counted(flight.torn, "record"));
    }
    if flight.records.is_empty() {
        text.push_str("\n  nothing recorded");
        return text;
    }
    text.push_str("\n  at (UTC)       generation      step  phase       took");
    for Entry { record, at } in &flight.records {
        let took =
            record.took.map_or_else(|| "-".to_owned(), |took| format!("{:.3} ms", took.as_secs_f64() * 1e3));
        let (generation, step) = (record.generation.0, record.step.0);
        let _ = write!(
            text,
            "\n  {}  {generation:>11}  {step:>8}  {:<10}  {took}",
            time_of_day(*at),
            record.phase.name(),
        );
    }
    text
}

fn time_of_day(since_epoch: Seconds) -> String {
    let milliseconds = (since_epoch.0 * 1e3).round() as u64 % 86_400_000;
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    format!("{:02}:{:02}:{:02}.{rest:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use longtake_shared::ids::{Generation, Step};
    use longtake_shared::protocol::stamp::StepPhase;

    use super::*;

    #[test]
    fn the_newest_records_are_shown_with_their_time_of_day() {
        let record = |sequence, phase, took| FlightRecord {
            sequence,
            generation: Generation(7),
            step: Step(41),
            phase,
            resumed: false,
            entered_at: Duration::from_millis(1000 * sequence),
            took,
        };
        let flight = Flight {
            anchor: Duration::from_secs(3661),
            pid: Some(12),
            alive: Some(Duration::from_millis(2500)),
            awaited: 0,
            said: 0,
            records: vec![
                record(1, StepPhase::Data, None),
                record(2, StepPhase::Look, Some(Duration::from_secs(1))),
                record(3, StepPhase::WriteBack, None),
            ],
            torn: 0,
        };
        let shown = text(&of_ring(0, false, &flight, 2));
        let expected = "worker 0, process 12, last sign of life 01:01:03.500 UTC\n  \
             at (UTC)       generation      step  phase       took\n  \
             01:01:03.000            7        41  look        1000.000 ms\n  \
             01:01:04.000            7        41  write_back  -";
        assert_eq!(shown, expected);
    }

    #[test]
    fn rings_are_found_by_index_with_those_of_earlier_processes_first() {
        let folder = tempfile::tempdir().unwrap();
        for index in [10, 2] {
            FlightLog::create(&flight::path(folder.path(), index), Duration::ZERO).unwrap();
        }
        FlightLog::create(&flight::path(folder.path(), 2), Duration::ZERO).unwrap();
        std::fs::write(folder.path().join("flight/other"), "").unwrap();
        let found = |worker| -> Vec<(u32, bool)> {
            rings(folder.path(), worker).into_iter().map(|(index, earlier, _)| (index, earlier)).collect()
        };
        assert_eq!(found(None), [(2, true), (2, false), (10, false)]);
        assert_eq!(found(Some(10)), [(10, false)]);
        assert_eq!(found(Some(3)), []);
    }
}
