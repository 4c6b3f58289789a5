//! `longtake bench backbone` for whoever works on the backbone: `cargo bench -p longtake-worker --bench swin -- [RUNS]`.
#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use longtake_shared::bench::table;
use longtake_worker::bench::backbone;

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let runs = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(backbone::RUNS);
    print!("{}", table(&backbone::measure(runs.max(1))));
}
