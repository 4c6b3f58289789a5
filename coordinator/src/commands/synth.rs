//! `longtake synth`: a small data set of real videos whose actions are known.

use std::fs;
use std::path::Path;

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::SynthRequest;

use super::{Session, settings};
use crate::cli::SynthArgs;

pub(super) fn run(args: &SynthArgs, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("synth")?;
    let request = SynthRequest { synth: settings::synth(&args.overrides)?, folder: args.out.clone() };
    require_empty(&request.folder)?;
    let bar = session.console.bar("synth");
    let made = (worker.synth)(&request, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let made = made?;
    let text = format!(
        "{} videos with {} actions\n  videos        {}\n  annotations   {}",
        made.video_count,
        made.action_count,
        made.videos.display(),
        made.annotations.display(),
    );
    session.console.result(&text, &made)?;
    Ok(ExitCode::Done)
}

/// A folder with anything in it is left alone.
fn require_empty(folder: &Path) -> Result<(), Failure> {
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(format!("the folder `{}` is not empty", folder.display()))
            .hint("name a folder that does not exist yet")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::new(format!("the folder `{}` cannot be used: {error}", folder.display()))
            .hint("name a folder that does not exist yet")),
    }
}
