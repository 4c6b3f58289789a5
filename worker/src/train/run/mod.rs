//! A generation as one worker sees it: the context of every room of [`crate::train`].

/// Settings, data and identity of a worker in a generation.
pub mod context;

/// Videos that cannot be read while a run lives.
pub mod damage;

/// A collective that records the phase it waits in.
pub mod phase_recording;

/// Progress and metrics.
pub mod report;
