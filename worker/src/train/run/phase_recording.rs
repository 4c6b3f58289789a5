//! A collective that says so while this worker waits for the others: whoever waits is not to blame for it.

use std::sync::Arc;

use longtake_shared::ids::{Generation, Rank};

use crate::collective::{Aborter, Collective, CollectiveError};
use crate::control::{Session, StepPhase};

/// Another collective, whose calls are [`StepPhase::Reduce`] in this worker's flight recorder, whatever phase they lie in.
pub struct Waiting {
    /// The collective.
    pub collective: Box<dyn Collective>,
    /// Whose recorder.
    pub session: Arc<Session>,
}

impl Collective for Waiting {
    fn rank(&self) -> Rank {
        self.collective.rank()
    }

    fn world(&self) -> usize {
        self.collective.world()
    }

    fn generation(&self) -> Generation {
        self.collective.generation()
    }

    fn all_reduce(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.session.during(StepPhase::Reduce, || self.collective.all_reduce(values))
    }

    fn broadcast(&mut self, root: Rank, bytes: &mut Vec<u8>) -> Result<(), CollectiveError> {
        self.session.during(StepPhase::Reduce, || self.collective.broadcast(root, bytes))
    }

    fn exchange(
        &mut self,
        send: &[(Rank, Vec<u8>)],
        receive: &[Rank],
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.session.during(StepPhase::Reduce, || self.collective.exchange(send, receive))
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.session.during(StepPhase::Reduce, || self.collective.barrier())
    }

    fn aborter(&self) -> Aborter {
        self.collective.aborter()
    }
}
