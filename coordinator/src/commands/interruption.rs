//! What stop signals do to a command that is no run: it ends in order, and a second signal ends it at once.

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::stop::Stop;

use super::Session;
use crate::signals::Watch;

/// The request that a signal makes; who works looks at it and cleans up.
pub(super) struct Interruption {
    /// Asked by the first signal.
    pub(super) stop: Stop,
    /// Ends with this value.
    _watch: Watch,
}

/// From now on the first stop signal asks the command to stop, and the second ends the process.
pub(super) fn in_order() -> Result<Interruption, Failure> {
    let stop = Stop::default();
    let asked = stop.clone();
    let watch = Watch::begin(move || {
        if asked.asked() {
            end();
        }
        asked.ask();
    });
    Ok(Interruption { stop, _watch: watch.map_err(|error| deaf(&error))? })
}

/// From now on a stop signal ends the process, after `clean`: for commands that have nothing to finish.
pub(super) fn at_once(session: &Session, clean: impl Fn() + Send + 'static) -> Result<Watch, Failure> {
    let console = session.console;
    Watch::begin(move || {
        clean();
        console.fail(&Failure::interrupted());
        end();
    })
    .map_err(|error| deaf(&error))
}

fn deaf(error: &std::io::Error) -> Failure {
    Failure::new(format!("stop signals cannot be received: {error}"))
}

#[allow(clippy::exit, reason = "whoever sends a second signal does not want to wait for threads")]
fn end() -> ! {
    std::process::exit(i32::from(ExitCode::Interrupted.code()))
}
