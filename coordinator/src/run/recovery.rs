//! Which checkpoint a run goes on from.

use longtake_shared::ids::Step;
use longtake_shared::protocol::Stage;

use super::commit::Committed;

/// Where a run can be taken up again, and why there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumePoint {
    /// This coordinator has committed it.
    Newest(Stage, Step),
    /// Nothing was committed since the run was taken up there.
    AsStarted(Stage, Step),
    /// There is no checkpoint: from the start.
    Start,
}

impl ResumePoint {
    /// The newest checkpoint there is.
    pub fn decide(started_from: Option<(Stage, Step)>, newest: Option<Committed>) -> Self {
        match (newest, started_from) {
            (Some(newest), _) => Self::Newest(newest.stage, newest.step),
            (None, Some((stage, step))) => Self::AsStarted(stage, step),
            (None, None) => Self::Start,
        }
    }

    /// The step, where there is a checkpoint.
    pub fn step(self) -> Option<Step> {
        match self {
            Self::Newest(_, step) | Self::AsStarted(_, step) => Some(step),
            Self::Start => None,
        }
    }
}
