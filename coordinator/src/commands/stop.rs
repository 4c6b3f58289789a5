//! `longtake stop`: makes a run save and end.

use longtake_shared::hint::{ExitCode, Failure};
use serde_json::json;

use super::Session;
use super::runtime::wait_for;
use crate::cli::RunArgs;
use crate::operator;

pub(super) fn run(args: &RunArgs, session: &Session) -> Result<ExitCode, Failure> {
    wait_for(operator::stop(&args.run))??;
    let run = shell(&args.run);
    let text = format!(
        "asked: the run finishes its step, saves, and ends\ngo on with: longtake train --resume {run}"
    );
    session.console.result(&text, &json!({ "asked": true }))?;
    Ok(ExitCode::Done)
}
