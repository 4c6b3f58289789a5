//! Hands a prepared run to the control plane.

use std::sync::mpsc::Sender;

use longtake_shared::hint::Failure;

use super::prepare::Prepared;
use crate::updates::{Outcome, RunUpdate};

/// Which stages a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stages {
    /// All that the configuration names.
    All,
    /// The backbone as a classifier, nothing else.
    PretrainOnly,
}

/// Runs coordinator, agent and workers on this machine to the end; closes the channel when nothing more will be told.
pub(super) fn start(
    prepared: &Prepared,
    _stages: Stages,
    _updates: Sender<RunUpdate>,
) -> Result<Outcome, Failure> {
    Err(Failure::new(format!("the run `{}` cannot be started by this build", prepared.folder.0.display())))
}
