//! The sum of a vector over ranks: rings over loopback TCP, a thread a rank.

use std::thread;

use longtake_shared::bench::{Row, Times};

use crate::collective::{Collective as _, CollectiveError, Ring, loopback};

/// Values of a vector, and how often it is summed: a few control flags, a bucket, a small model.
const SIZES: [(usize, usize); 3] = [(200, 2000), (65_536, 300), (4_000_000, 11)];

/// Measures worlds of 2 and 4.
///
/// # Errors
/// The ranks do not reach each other.
pub fn measure() -> Result<Vec<Row>, CollectiveError> {
    let mut rows = Vec::new();
    for world in [2, 4] {
        let mut rings = loopback(world)?;
        for (values, runs) in SIZES {
            let times = on_all(&mut rings, values, runs)?;
            rows.push(times.row(format!("all-reduce of {values} f32 over {world} ranks")));
        }
    }
    Ok(rows)
}

/// The times of the first rank.
fn on_all(rings: &mut [Ring], values: usize, runs: usize) -> Result<Times, CollectiveError> {
    let work = |ring: &mut Ring| {
        let mut vector = vec![1.0; values];
        let mut times = Times::default();
        ring.barrier()?;
        for _ in 0..runs {
            times.measure(|| ring.all_reduce(&mut vector))?;
            // So that sums stay finite.
            vector.fill(1.0);
        }
        Ok(times)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = rings.iter_mut().map(|ring| scope.spawn(move || work(ring))).collect();
        let mut times = Vec::new();
        for thread in threads {
            times.push(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(times.swap_remove(0))
    })
}
