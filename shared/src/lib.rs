//! What Longtake's coordinator and workers must agree on, and nothing else: no tensors, no devices.
//!
//! Read in this order: [`ids`] and [`units`] are the vocabulary, [`config`] is what a user chose,
//! [`dataset`] is what there is to learn from, [`lanes`] deals it out, [`protocol`] is how the processes talk,
//! [`checkpoint`] is what survives them, [`metrics`] says how good the result is.

/// Names of things: runs, workers, ranks, generations, steps.
pub mod ids;

/// Numbers with a unit: seconds, frames, bytes.
pub mod units;

/// One tree of typed settings; each value knows where it came from.
pub mod config;

/// Text files in the encodings that people have.
pub mod text;

/// JSON with the place of every value.
pub mod json;

/// Annotations of videos: what happens when.
pub mod dataset;

/// A fixed number of lanes deals videos, memory and random numbers, whatever the world size.
pub mod lanes;

/// Counter-based random numbers: a draw is a function of its key.
pub mod random;

/// The messages between operator, coordinator, agent and worker.
pub mod protocol;

/// What makes a checkpoint real.
pub mod checkpoint;

/// Object stores behind URLs.
pub mod objects;

/// mAP by the official protocol.
pub mod metrics;

/// How long something takes, beside a peer.
pub mod bench;

/// Tasks with a declared fate.
pub mod task;

/// Advice that an error carries.
pub mod hint;

/// A request to end long work before its end.
pub mod stop;

/// What the command line asks of the worker library.
pub mod role;

/// Logging set-up and the names of its fields.
pub mod telemetry;
