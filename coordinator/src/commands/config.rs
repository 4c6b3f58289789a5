//! `longtake config`: every setting, its value, and where the value comes from.

use longtake_shared::config::Resolved;
use longtake_shared::hint::{ExitCode, Failure};

use super::{Session, settings};
use crate::cli::ConfigArgs;

pub(super) fn run(args: &ConfigArgs, session: &Session) -> Result<ExitCode, Failure> {
    let resolved = settings::load(&args.config, &args.overrides)?;
    session.console.result(&listing(&resolved), &resolved)?;
    Ok(ExitCode::Done)
}

/// One line a setting, in TOML that could be pasted into a file; the source is a comment.
fn listing(resolved: &Resolved) -> String {
    let rows = resolved.rows();
    let assignments: Vec<String> = rows.iter().map(|(key, value, _)| format!("{key} = {value}")).collect();
    let width = assignments.iter().map(|text| text.chars().count()).max().unwrap_or(0).min(56);
    let lines: Vec<String> = assignments
        .iter()
        .zip(&rows)
        .map(|(assignment, (_, _, source))| format!("{assignment:<width$}  # {source}"))
        .collect();
    lines.join("\n")
}
