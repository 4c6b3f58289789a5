//! Checkpoints on real folders and in real stores behind HTTP: crashes, races, damage, and answers that go wrong.

#![allow(missing_docs, reason = "tests are sentences")]
#![allow(clippy::unwrap_used, reason = "support of tests, whose failure is a panic")]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures of what was tried, and what was left out"
)]

mod commands;
mod conformance;
mod crashes;
mod damage;
mod faults;
mod proxy;
mod races;
mod servers;
mod support;
