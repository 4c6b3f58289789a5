//! `longtake bench`: measures a part of Longtake on this machine.

mod cluster;
mod control;
mod hang;
mod launch;
mod recovery;
mod steady;
mod told;

use std::fs;
use std::path::{Path, PathBuf};

use longtake_shared::bench::{self, Findings, Row};
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::WorkerBenchmark;

use super::{Session, files, interruption};
use crate::cli::{BenchArgs, Benchmark};

pub(super) fn run(args: &BenchArgs, session: &Session) -> Result<ExitCode, Failure> {
    let folder = Folder::make(&args.folder)?;
    let files = folder.0.clone();
    let _watch = interruption::at_once(session, move || files::remove_folder(&files))?;
    let findings = measure(args.name, &folder.0, session)?;
    session.console.result(&findings.table(), &findings)?;
    Ok(ExitCode::Done)
}

/// One line a benchmark: the only place that knows where each of them lives.
fn measure(name: Benchmark, folder: &Path, session: &Session) -> Result<Findings, Failure> {
    let times = |rows: Vec<Row>| Findings { rows, counts: Vec::new() };
    let of_worker = |what| (session.worker("bench")?.bench)(what, folder).map(times);
    match name {
        Benchmark::Map => Ok(times(bench::map::measure()?)),
        Benchmark::Memory => of_worker(WorkerBenchmark::Memory),
        Benchmark::Backbone => of_worker(WorkerBenchmark::Backbone),
        Benchmark::AllReduce => of_worker(WorkerBenchmark::AllReduce),
        Benchmark::Checkpoint => of_worker(WorkerBenchmark::Checkpoint),
        Benchmark::Control => Ok(Findings {
            rows: control::measure(folder)?,
            counts: steady::measure(folder, session.worker("bench")?)?,
        }),
        Benchmark::Recovery => recovery::measure(folder, session.worker("bench")?),
        Benchmark::Launch => launch::measure(folder, session.worker("bench")?).map(times),
    }
}

/// A folder of this process alone, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn make(below: &Path) -> Result<Self, Failure> {
        let folder = below.join(format!("longtake-bench-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| {
            Failure::new(format!("the folder `{}` cannot be made: {error}", folder.display()))
                .hint("name a folder that exists and may be written, with --folder")
        })?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        files::remove_folder(&self.0);
    }
}
