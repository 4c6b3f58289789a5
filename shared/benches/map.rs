//! `longtake bench map` for whoever works on the evaluator: `cargo bench -p longtake-shared --bench map`.

#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use longtake_shared::bench::{map, table};
use longtake_shared::metrics::MetricsError;

fn main() -> Result<(), MetricsError> {
    print!("{}", table(&map::measure()?));
    Ok(())
}
