//! Real processes that are killed, stopped and cut off: what a run survives, and that it stays the run it would have been.
//!
//! In CI each fault strikes twice; `LONGTAKE_NIGHTLY=1` makes it twenty times. Figures go to standard error.

#![allow(missing_docs, reason = "tests are sentences")]
#![allow(clippy::unwrap_used, reason = "support of tests, whose failure is a panic")]
#![allow(clippy::print_stderr, reason = "a suite tells what it measured")]

mod cgroups;
mod cluster;
mod exactness;
mod faults;
#[path = "../cluster/runs/lab.rs"]
#[allow(dead_code, reason = "shared with the suite of whole runs")]
mod lab;
mod links;
mod nodes;
mod partitions;
mod soak;

use lab::numbers;

/// How often a fault strikes.
fn rounds(ci: usize, nightly: usize) -> usize {
    if is_nightly() { nightly } else { ci }
}

fn is_nightly() -> bool {
    std::env::var_os("LONGTAKE_NIGHTLY").is_some()
}
