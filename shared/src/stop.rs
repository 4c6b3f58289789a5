//! A request to end long work before its end, made by a signal and looked at by whoever does the work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::hint::Failure;

/// A request to stop. Clones are the same request; it cannot be taken back.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Makes the request.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it has been made.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Nothing before the request, [`Failure::interrupted`] after it.
    ///
    /// # Errors
    /// The request has been made.
    pub fn check(&self) -> Result<(), Failure> {
        if self.asked() { Err(Failure::interrupted()) } else { Ok(()) }
    }
}
