//! What a command line means: one file a command, each from arguments to an exit code or a [`longtake_shared::hint::Failure`].

mod agent;
mod bench;
mod checkpoint;
mod config;
mod data_check;
mod detect;
mod evaluate;
mod examine;
mod files;
mod flight;
mod import;
mod interruption;
mod pictures;
mod run_folder;
mod run_state;
mod runtime;
mod settings;
mod status;
mod stop;
mod synth;
mod train;
mod work;

use longtake_shared::dataset::Finding;
use longtake_shared::hint::{ExitCode, Failure, Hint as _};
use longtake_shared::telemetry::{self, LogFormat};

use crate::cli::{Command, DataCommand};
use crate::terminal::console::Console;
use crate::worker_role::{self, WorkerRole};

/// What every command is given beside its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    /// The worker library, where it is linked.
    pub worker: Option<WorkerRole>,
    /// How this process talks.
    pub console: Console,
}

impl Session {
    /// The worker library for a command that cannot do without.
    fn worker(&self, command: &str) -> Result<WorkerRole, Failure> {
        worker_role::require(self.worker, command)
    }
}

/// Does what was typed.
///
/// # Errors
/// Whatever keeps the command from its end, as one sentence with advice.
pub fn run(command: &Command, session: &Session) -> Result<ExitCode, Failure> {
    start_logging(command)?;
    match command {
        Command::Train(args) => train::train(args, session),
        Command::Coordinator(args) => train::coordinate(args, session),
        Command::Agent(args) => agent::run(args, session),
        Command::Pretrain(args) => train::pretrain(args, session),
        Command::Detect(args) => detect::run(args, session),
        Command::Evaluate(args) => evaluate::run(args, session),
        Command::Import(args) => import::run(args, session),
        Command::Synth(args) => synth::run(args, session),
        Command::Data(args) => match &args.command {
            DataCommand::Check(args) => data_check::run(args, session),
        },
        Command::Config(args) => config::run(args, session),
        Command::Status(args) => status::run(args, session),
        Command::Flight(args) => flight::run(args, session),
        Command::Stop(args) => stop::run(args, session),
        Command::Checkpoint(args) => checkpoint::run(args, session),
        Command::Bench(args) => bench::run(args, session),
        Command::Worker(args) => work::run(args, session),
    }
}

/// Log lines go to standard error: a worker's is its log, which tells more than a terminal should.
fn start_logging(command: &Command) -> Result<(), Failure> {
    let wanted = std::env::var(telemetry::LOG_VARIABLE).ok().filter(|filter| !filter.is_empty());
    let default = if matches!(command, Command::Worker(_)) { "info" } else { "warn" };
    Ok(telemetry::init(wanted.as_deref().unwrap_or(default), LogFormat::Text)?)
}

/// What reading annotations found, with what to do about it.
fn tell(findings: &[Finding], console: Console) {
    for finding in findings {
        let advice = finding.hint().map_or_else(String::new, |hint| format!("\nhint: {hint}"));
        console.warn(&format!("{finding}{advice}"));
    }
}
