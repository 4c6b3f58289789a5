//! `longtake synth`: a small data set of real videos whose actions are known.

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::{SynthReport, SynthRequest};

use super::{Session, settings};
use crate::cli::SynthArgs;
use crate::terminal::console::Console;
use crate::worker_role::WorkerRole;

pub(super) fn run(args: &SynthArgs, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("synth")?;
    let request = SynthRequest { synth: settings::synth(&args.overrides)?, folder: args.out.clone() };
    let made = make(&request, worker, &session.console)?;
    let text = format!(
        "{} videos with {} actions\n  videos        {}\n  annotations   {}",
        made.videos,
        made.actions,
        request.videos().display(),
        request.annotations().display(),
    );
    session.console.result(&text, &made)?;
    Ok(ExitCode::Done)
}

/// Makes a data set; the worker library lets it appear whole or not at all, and leaves a folder alone that holds
/// anything else.
pub(super) fn make(
    request: &SynthRequest,
    worker: WorkerRole,
    console: &Console,
) -> Result<SynthReport, Failure> {
    let bar = console.bar("synth");
    let made = (worker.synth)(request, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    made
}
