//! Real processes that are killed, stopped and cut off: what a run survives, and that it stays the run it would have been.
//!
//! In CI each fault strikes twice; `LONGTAKE_NIGHTLY=1` makes it twenty times. Figures go to standard error.

#![allow(missing_docs, reason = "tests are sentences")]
#![allow(clippy::unwrap_used, reason = "support of tests, whose failure is a panic")]
#![allow(clippy::print_stderr, reason = "a suite tells what it measured")]

mod cluster;
mod exactness;
mod faults;
#[path = "../cluster/runs/lab.rs"]
#[allow(dead_code, reason = "shared with the suite of whole runs")]
mod lab;
mod partitions;
mod soak;

use longtake_shared::random::Key;
use rand_chacha::ChaCha8Rng;

/// How often a fault strikes.
fn rounds(ci: usize, nightly: usize) -> usize {
    if is_nightly() { nightly } else { ci }
}

fn is_nightly() -> bool {
    std::env::var_os("LONGTAKE_NIGHTLY").is_some()
}

/// Numbers that differ from run to run of the suite, and are told where it fails.
fn numbers() -> ChaCha8Rng {
    let chosen = std::env::var("LONGTAKE_CHAOS").ok().and_then(|seed| seed.parse().ok());
    let seed = chosen.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    eprintln!("LONGTAKE_CHAOS={seed} draws the same numbers");
    Key::root(seed).rng()
}
