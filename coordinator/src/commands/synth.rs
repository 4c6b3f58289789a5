//! `longtake synth`: a small data set of real videos whose actions are known.

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::{SynthReport, SynthRequest};
use longtake_shared::stop::Stop;
use longtake_shared::units::counted;

use super::{Session, interruption, settings};
use crate::cli::SynthArgs;
use crate::terminal::console::Console;
use crate::worker_role::WorkerRole;

pub(super) fn run(args: &SynthArgs, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("synth")?;
    let request = SynthRequest { synth: settings::synth(&args.overrides)?, folder: args.out.clone() };
    let interruption = interruption::in_order()?;
    let made = make(&request, worker, &interruption.stop, &session.console)?;
    let text = format!(
        "{}\n  videos        {}\n  annotations   {}",
        content(&made),
        request.videos().display(),
        request.annotations().display(),
    );
    session.console.result(&text, &made)?;
    Ok(ExitCode::Done)
}

/// How many videos and actions were made.
pub(super) fn content(made: &SynthReport) -> String {
    format!("{} with {}", counted(made.videos, "video"), counted(made.actions, "action"))
}

/// Makes a data set; the worker library lets it appear whole or not at all, and leaves a folder alone that holds
/// anything else.
pub(super) fn make(
    request: &SynthRequest,
    worker: WorkerRole,
    stop: &Stop,
    console: &Console,
) -> Result<SynthReport, Failure> {
    let bar = console.bar("synth");
    let made = (worker.synth)(request, stop, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    made
}
