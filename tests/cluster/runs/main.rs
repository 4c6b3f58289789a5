//! The real program, with real workers, on a run so small that it takes seconds.

#![allow(missing_docs, reason = "tests are sentences")]
#![allow(clippy::unwrap_used, reason = "support of tests, whose failure is a panic")]
#![allow(clippy::print_stderr, reason = "what was drawn, and what was left out")]

mod bad_input;
mod checkpoints;
mod commands;
mod damage;
mod decoders;
mod detecting;
mod faults;
#[allow(dead_code, reason = "shared with the suite of chaos")]
mod lab;
mod object_store;
mod options;
#[path = "../../checkpoints/proxy.rs"]
#[allow(dead_code, reason = "shared with the suite of checkpoints")]
mod proxy;
mod resume;
mod roles;
#[path = "../../checkpoints/servers.rs"]
#[allow(dead_code, reason = "shared with the suite of checkpoints")]
mod servers;
mod signals;
