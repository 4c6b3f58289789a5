//! Sums of moments for synchronised BatchNorm, through the collective that the gradients use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Aborter, Collective, CollectiveError};
use crate::model::norm::MomentsReducer;

/// One collective for the forward pass and for the gradients. A forward pass cannot return an error, so the first one
/// that meets it here is kept for the trainer, and later calls are not made.
#[derive(Clone)]
pub struct SharedCollective {
    state: Arc<Mutex<State>>,
    aborter: Aborter,
}

struct State {
    collective: Box<dyn Collective>,
    error: Option<CollectiveError>,
}

impl std::fmt::Debug for SharedCollective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedCollective").finish_non_exhaustive()
    }
}

impl SharedCollective {
    /// Shares a collective.
    pub fn new(collective: Box<dyn Collective>) -> Self {
        let aborter = collective.aborter();
        Self { state: Arc::new(Mutex::new(State { collective, error: None })), aborter }
    }

    /// Makes a call, unless an earlier one failed.
    ///
    /// # Errors
    /// The first error since this collective was formed.
    pub fn with<R>(
        &self,
        call: impl FnOnce(&mut dyn Collective) -> Result<R, CollectiveError>,
    ) -> Result<R, CollectiveError> {
        let mut state = self.lock();
        if let Some(error) = &state.error {
            return Err(error.clone());
        }
        let result = call(state.collective.as_mut());
        if let Err(error) = &result {
            state.error = Some(error.clone());
        }
        result
    }

    /// The sums over all ranks in place. After an error they are NaN, so that nothing that follows from them passes for
    /// a result: ask [`Self::check`] what happened.
    pub fn sum(&self, values: &mut [f32]) {
        if self.with(|collective| collective.all_reduce(values)).is_err() {
            values.fill(f32::NAN);
        }
    }

    /// Whether every call so far succeeded and the next one may be made. Long work asks between two pieces of it.
    ///
    /// # Errors
    /// The first call that did not succeed, or the generation was aborted.
    pub fn check(&self) -> Result<(), CollectiveError> {
        self.lock().error.clone().map_or_else(|| self.aborter.check(), Err)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MomentsReducer for SharedCollective {
    fn sum(&self, values: &mut [f32]) {
        Self::sum(self, values);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "what is not touched keeps its bits")]

    use longtake_shared::ids::{Generation, Rank};

    use super::*;
    use crate::collective::{Fault, FaultKind, Faulty, Local};

    #[test]
    fn the_first_error_is_kept_and_later_calls_are_not_made() {
        let local = Local::new(Generation(1), Aborter::new().unwrap());
        let fault = Fault { rank: Rank(0), call: 1, kind: FaultKind::Fail };
        let shared = SharedCollective::new(Box::new(Faulty::new(local, vec![fault])));
        let mut values = [1.0, 2.0];
        shared.sum(&mut values);
        assert_eq!(shared.check(), Ok(()));
        assert_eq!(values, [1.0, 2.0]);
        shared.sum(&mut values);
        assert!(values.iter().all(|value| value.is_nan()));
        let expected = Err(CollectiveError::Injected { rank: Rank(0), call: 1 });
        assert_eq!(shared.check(), expected);
        assert_eq!(shared.with(|collective| collective.barrier()), expected);
    }
}
