//! `longtake bench memory` for whoever works on the store: `cargo bench -p longtake-worker --bench memory_store`.
#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::error::Error;

use longtake_shared::bench::table;
use longtake_worker::bench::memory;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    print!("{}", table(&memory::measure(folder.path())?));
    Ok(())
}
