//! `longtake synth`: a small data set of real videos whose actions are known.

use std::fs;
use std::path::Path;

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

/// Makes a data set under another name and gives it its own when it is whole.
pub(super) fn make(
    request: &SynthRequest,
    worker: WorkerRole,
    console: &Console,
) -> Result<SynthReport, Failure> {
    require_empty(&request.folder)?;
    let name = request.folder.file_name().unwrap_or_default().to_string_lossy();
    let partial = request.folder.with_file_name(format!(".{name}.partial"));
    let clear = || match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unusable(&partial, &error)),
        _ => Ok(()),
    };
    // An earlier attempt may have been killed.
    clear()?;
    let bar = console.bar("synth");
    let made =
        (worker.synth)(&SynthRequest { folder: partial.clone(), ..request.clone() }, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
    bar.finish_and_clear();
    let made = made.inspect_err(|_| drop(clear()))?;
    fs::rename(&partial, &request.folder).map_err(|error| unusable(&request.folder, &error))?;
    Ok(made)
}

/// A folder with anything in it is left alone.
fn require_empty(folder: &Path) -> Result<(), Failure> {
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(format!("the folder `{}` is not empty", folder.display()))
            .hint("name a folder that does not exist yet")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unusable(folder, &error)),
    }
}

fn unusable(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("the folder `{}` cannot be used: {error}", folder.display()))
        .hint("name a folder that does not exist yet")
}
