//! `longtake data check`: annotations and every video file, before a run finds out.

use longtake_shared::dataset;
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::ProbeRequest;

use super::{Session, interruption, settings};
use crate::cli::ConfigArgs;

pub(super) fn run(args: &ConfigArgs, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("data check")?;
    let config = settings::load(&args.config, &args.overrides)?.config;
    settings::require_paths(&config)?;
    let data = config.data;
    let _watch = interruption::at_once(session, || {})?;
    let bar = session.console.bar("probing");
    let report = dataset::check(&data, &|video| {
        bar.inc(1);
        let request = ProbeRequest { data: data.clone(), video: video.to_owned() };
        // A complaint says what to do, too.
        (worker.probe)(&request).map_err(|failure| match failure.hint {
            Some(hint) => format!("{}; {hint}", failure.message),
            None => failure.message,
        })
    });
    bar.finish_and_clear();
    let report = report?;
    session.console.result(&report.to_string(), &report)?;
    Ok(if report.problems.is_empty() { ExitCode::Done } else { ExitCode::Failed })
}
