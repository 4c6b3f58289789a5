//! `longtake train`

use longtake_shared::hint::{ExitCode, Failure};

use super::Session;
use crate::cli::{PretrainArgs, TrainArgs};

pub(super) fn train(_args: &TrainArgs, _session: &Session) -> Result<ExitCode, Failure> {
    Err(Failure::new("this build cannot do that yet"))
}

pub(super) fn pretrain(_args: &PretrainArgs, _session: &Session) -> Result<ExitCode, Failure> {
    Err(Failure::new("this build cannot do that yet"))
}
