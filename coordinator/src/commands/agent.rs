//! `longtake agent`: starts a run's workers on this node, and lasts longer than a coordinator.

use std::path::Path;

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::ids::RunId;
use longtake_shared::units::counted;

use super::run_folder::RunFolder;
use super::{Session, runtime};
use crate::agent::AgentOptions;
use crate::agent::core::OnLoss;
use crate::agent::worker_command::WorkerCommand;
use crate::cli::AgentArgs;
use crate::join_as_agent;
use crate::server::address::{Contact, Whereabouts};
use crate::signals::Signals;

pub(super) fn run(args: &AgentArgs, session: &Session) -> Result<ExitCode, Failure> {
    session.worker("agent")?;
    let slots = usize::from(args.slots);
    let run_folder = std::path::absolute(&args.run)
        .map_err(|error| Failure::new(format!("`{}` cannot be found: {error}", args.run.display())))?;
    let stored = || RunFolder(args.run.clone()).stored_settings().map(|stored| stored.config.cluster.threads);
    // A run that has not begun has stored nothing yet.
    let threads = args.threads.unwrap_or_else(|| stored().unwrap_or_default());
    let worker_command = WorkerCommand::this_program(threads, slots)
        .map_err(|error| Failure::new(format!("the path of this program cannot be found out: {error}")))?;
    let options = AgentOptions {
        coordinator: whereabouts(args, &run_folder)?,
        on_loss: OnLoss::Reconnect,
        slots,
        worker_command,
        run_folder,
    };
    let runtime = runtime::of_role("agent")?;
    runtime.block_on(async {
        let signals = Signals::install()
            .map_err(|error| Failure::new(format!("stop signals cannot be received: {error}")))?;
        let workers = counted(slots, "worker");
        session.console.say(&format!("serving the run in `{}` with up to {workers}", args.run.display()));
        let exit = join_as_agent(options, signals).await?;
        session.console.say(match exit {
            ExitCode::Done => "the run is done",
            ExitCode::Preempted => "the run was stopped and has saved",
            _ => "the run has failed: its coordinator says why",
        });
        Ok(exit)
    })
}

/// A coordinator whose address is given may lie behind another name for its folder: the run is named by the folder.
fn whereabouts(args: &AgentArgs, run_folder: &Path) -> Result<Whereabouts, Failure> {
    let (Some(address), Some(token_file)) = (&args.coordinator, &args.token_file) else {
        return Ok(Whereabouts::Folder(run_folder.to_owned()));
    };
    let token = std::fs::read_to_string(token_file).map_err(|error| {
        let failure = Failure::new(format!("the token `{}` cannot be read: {error}", token_file.display()))
            .hint("write `token` of the run's `coordinator.json` into a file");
        Failure { exit: ExitCode::of_named_file(&error), ..failure }
    })?;
    let name = run_folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Whereabouts::Fixed(Contact {
        run: RunId(name),
        address: address.clone(),
        token: token.trim().to_owned(),
    }))
}
