//! `longtake bench`: measures a part of Longtake on this machine.

use longtake_shared::hint::{ExitCode, Failure};

use super::Session;
use crate::cli::BenchArgs;

pub(super) fn run(args: &BenchArgs, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("bench")?;
    let rows = (worker.bench)(&args.name, &args.folder)?;
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> =
        rows.iter().map(|row| format!("{:<width$}  {:>12.3} {}", row.name, row.value, row.unit)).collect();
    session.console.result(&lines.join("\n"), &rows)?;
    Ok(ExitCode::Done)
}
