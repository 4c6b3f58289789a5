//! `longtake data check`

use longtake_shared::hint::{ExitCode, Failure};

use super::Session;
use crate::cli::ConfigArgs;

pub(super) fn run(_args: &ConfigArgs, _session: &Session) -> Result<ExitCode, Failure> {
    Err(Failure::new("this build cannot do that yet"))
}
