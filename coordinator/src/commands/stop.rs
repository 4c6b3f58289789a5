//! `longtake stop`: makes a run save and end.

use longtake_shared::hint::{ExitCode, Failure};
use serde_json::json;

use super::Session;
use super::run_state::unanswered;
use super::runtime::wait_for;
use crate::cli::RunArgs;
use crate::operator;
use crate::terminal::phrases::shell;

pub(super) fn run(args: &RunArgs, session: &Session) -> Result<ExitCode, Failure> {
    wait_for(operator::stop(&args.run))?.map_err(|error| unanswered(&args.run, error))?;
    let run = shell(&args.run);
    let text = format!(
        "asked: the run finishes its step, saves, and ends\ngo on with: longtake train --resume {run}"
    );
    session.console.result(&text, &json!({ "asked": true }))?;
    Ok(ExitCode::Done)
}
