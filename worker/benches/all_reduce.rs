//! `longtake bench all-reduce` for whoever works on the ring: `cargo bench -p longtake-worker --bench all_reduce`.
#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use longtake_shared::bench::table;
use longtake_worker::bench::all_reduce;
use longtake_worker::collective::CollectiveError;

fn main() -> Result<(), CollectiveError> {
    print!("{}", table(&all_reduce::measure()?));
    Ok(())
}
