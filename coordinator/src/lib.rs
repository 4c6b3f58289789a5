//! Longtake's control plane, node agent and command line.
//!
//! Start at [`main`]: what was typed ([`cli`]) becomes what is done ([`commands`]), and what a person sees of it
//! ([`terminal`], [`timeline`]). [`mod@train`] is a whole run on this machine; below it lies the control plane, with the
//! protocol as a value in [`run`]. Nothing here touches a tensor: what needs one is asked of the worker library through
//! [`worker_role`].

/// What can be typed.
pub mod cli;

/// What it means: one file a command.
pub mod commands;

/// What people and programs see: bars, lines, tables, errors. The only place that prints.
pub mod terminal;

/// Detections and ground truth as a picture.
pub mod timeline;

/// The worker library, as functions.
pub mod worker_role;

// Control plane: begin.
/// The updates of a run for its observers.
pub mod updates;

/// The protocol as a pure state machine: events in, commands out.
pub mod run;

/// The event loop of a coordinator.
pub mod driver;

/// The durable records of a coordinator.
pub mod journal;

/// Stop signals as an argument.
pub mod signals;

/// The status report of a run.
pub mod status;

/// The coordinator's server and its address.
pub mod server;

/// The agent of a node: starts workers and watches them.
pub mod agent;

/// Requests of an operator from another process.
pub mod operator;

/// A whole run, on this machine or on several.
pub mod train;

pub use agent::join::join_as_agent;
pub use driver::Resume;
pub use train::{TrainError, TrainRequest, coordinate, train_local};
// Control plane: end.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use cli::Cli;
use commands::Session;
use terminal::console::Console;
use worker_role::WorkerRole;

/// Parses, runs, reports: everything between the operating system and a command.
pub fn main(args: impl IntoIterator<Item = OsString>, worker: Option<WorkerRole>) -> ExitCode {
    terminal::panics::report_as_one_sentence();
    let args: Vec<OsString> = args.into_iter().collect();
    let console = Console::of_process(args.iter().any(|arg| arg == "--json"));
    let exit = match Cli::try_parse_from(&args) {
        Ok(cli) => terminal::panics::contain(|| {
            let session = Session { worker, console };
            commands::run(&cli.command, &session).unwrap_or_else(|failure| console.fail(&failure))
        }),
        Err(error) => console.usage(&error),
    };
    ExitCode::from(exit.code())
}
