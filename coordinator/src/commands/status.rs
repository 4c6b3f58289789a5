//! `longtake status`

use longtake_shared::hint::{ExitCode, Failure};

use super::Session;
use crate::cli::RunArgs;

pub(super) fn run(_args: &RunArgs, _session: &Session) -> Result<ExitCode, Failure> {
    Err(Failure::new("this build cannot do that yet"))
}
