//! `longtake evaluate`

use longtake_shared::hint::{ExitCode, Failure};

use super::Session;
use crate::cli::EvaluateArgs;

pub(super) fn run(_args: &EvaluateArgs, _session: &Session) -> Result<ExitCode, Failure> {
    Err(Failure::new("this build cannot do that yet"))
}
