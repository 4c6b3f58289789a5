//! The real engine, driver, journal and agents under a seeded scheduler: virtual time, a network that delays, doubles, reorders
//! and loses, processes that crash and freeze, a store that is slow.
//!
//! A history is its seed. `LONGTAKE_SIMULATION=<seed>` plays one alone and prints what happened.
//!
//! ```text
//! scheduler --(time, happening)--> world --input--> Core (driver + engine + journal)   --orders--> links
//!                                     |---input--> AgentCore (one a node)               --outputs-> links, workers
//!                                     '---------> model of a worker: what a training process says and when
//! ```

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::print_stderr, reason = "a suite tells how far it went")]

mod chain;
mod coordinators;
mod faults;
mod histories;
mod judge;
mod nodes;
mod scheduler;
mod workers;
mod world;

use std::time::Instant;

use world::{Shape, World};

/// Seeds of small clusters and of large ones; all of them nightly.
const SMALL: (u64, u64) = (200, 1_980);
const LARGE: (u64, u64) = (1, 20);

/// What a history came to.
#[derive(Debug, PartialEq, Eq)]
struct Played {
    digest: blake3::Hash,
    happenings: u64,
    steps: u64,
    generations: u64,
}

fn play(seed: u64, shape: Shape, tell: bool) -> Played {
    let mut world = World::new(seed, shape, tell);
    world.run_until(shape.faulty);
    world.heal();
    let before = world.judge.steps;
    world.run_until(shape.faulty + shape.calm);
    assert!(
        world.is_over() || world.judge.steps > before,
        "seed {seed}: the run stands still although nothing fails any more\n{}",
        world.describe()
    );
    Played {
        digest: world.digest(),
        happenings: world.happenings(),
        steps: world.judge.steps,
        generations: world.judge.generations,
    }
}

/// Plays seeds on all cores; a failing one is named.
fn play_all(seeds: std::ops::Range<u64>, shape: impl Fn(u64) -> Shape + Sync) -> Vec<Played> {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let played = std::sync::Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let one = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        play(seed, shape(seed), false)
                    }));
                    match one {
                        Ok(one) => played.lock().unwrap().push(one),
                        Err(panic) => {
                            eprintln!("play it alone with LONGTAKE_SIMULATION={seed}");
                            std::panic::resume_unwind(panic);
                        }
                    }
                }
            });
        }
    });
    played.into_inner().unwrap()
}

fn count(of: (u64, u64)) -> u64 {
    if std::env::var_os("LONGTAKE_NIGHTLY").is_some() { of.1 } else { of.0 }
}

fn report(what: &str, played: &[Played], begun: Instant) {
    let sum = |of: fn(&Played) -> u64| played.iter().map(of).sum::<u64>();
    eprintln!(
        "{}: {} seeds, {} happenings, {} steps, {} generations in {:.1} s",
        what,
        played.len(),
        sum(|one| one.happenings),
        sum(|one| one.steps),
        sum(|one| one.generations),
        begun.elapsed().as_secs_f64()
    );
}

#[test]
fn small_clusters_keep_the_invariants_and_get_on() {
    if let Some(seed) = std::env::var("LONGTAKE_SIMULATION").ok().and_then(|seed| seed.parse().ok()) {
        let played = play(seed, Shape::small(seed), true);
        return eprintln!("{played:?}");
    }
    let begun = Instant::now();
    let played = play_all(0..count(SMALL), Shape::small);
    report("up to 16 workers", &played, begun);
    assert!(
        played.iter().map(|one| one.generations).sum::<u64>() > 3 * played.len() as u64,
        "faults do happen"
    );
}

#[test]
fn large_clusters_keep_the_invariants_and_get_on() {
    let begun = Instant::now();
    let played = play_all(0..count(LARGE), |_| Shape::LARGE);
    report("2,000 workers", &played, begun);
}

#[test]
fn a_seed_plays_the_same_history_again() {
    for seed in [3, 7] {
        assert_eq!(play(seed, Shape::small(seed), false), play(seed, Shape::small(seed), false));
    }
}
