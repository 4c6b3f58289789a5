//! The real program, with real workers, on a run so small that it takes seconds.

#![allow(missing_docs, reason = "tests are sentences")]
#![allow(clippy::unwrap_used, reason = "support of tests, whose failure is a panic")]

mod bad_input;
mod checkpoints;
mod commands;
mod faults;
#[allow(dead_code, reason = "shared with the suite of chaos")]
mod lab;
mod resume;
mod roles;
