//! `longtake data check`: annotations and every video file, before a run finds out.

use longtake_shared::dataset::{self, Video};
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::Depth;
use longtake_shared::stop::Stop;

use super::{Session, examine, interruption, settings};
use crate::cli::CheckArgs;

pub(super) fn run(args: &CheckArgs, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("data check")?;
    let config = settings::load(&args.config.config, &args.config.overrides)?.config;
    settings::require_paths(&config)?;
    let data = config.data;
    let _watch = interruption::at_once(session, || {})?;
    let depth = if args.thorough { Depth::Whole } else { Depth::Ends };
    let stop = Stop::default();
    let examine = |videos: &[&Video]| examine::all(videos, &data, depth, worker, &stop, session.console);
    let report = dataset::check(&data, &examine)?;
    session.console.say(match depth {
        Depth::Ends => {
            "decoded the start, the middle and the end of each video; `--thorough` decodes all of it"
        }
        Depth::Whole => "decoded every picture of each video",
    });
    session.console.result(&report.to_string(), &report)?;
    Ok(if report.problems.is_empty() { ExitCode::Done } else { ExitCode::NeverRestart })
}
