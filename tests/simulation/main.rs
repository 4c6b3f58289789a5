//! The real engine, driver, journal and agents under a seeded scheduler: virtual time, a network that delays, doubles, reorders
//! and loses, processes that crash and freeze, a store that is slow.
//!
//! A history is its seed. `LONGTAKE_SIMULATION=<seed>` plays one alone and prints what happened, `LONGTAKE_SIMULATION=large:<seed>`
//! one of 2,000 workers.
//!
//! ```text
//! scheduler --(time, happening)--> world --input--> Core (driver + engine + journal)   --orders--> links
//!                                     |---input--> AgentCore (one a node)               --outputs-> links, workers
//!                                     '---------> model of a worker: what a training process says and when
//! ```

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::print_stderr, reason = "a suite tells how far it went")]

mod bugs;
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

use bugs::Bug;
use longtake_coordinator::updates::Outcome;
use world::{Shape, World};

/// How large the clusters are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// Up to 16 workers.
    Small,
    /// 2,000 workers.
    Large,
}

impl Scale {
    fn shape(self, seed: u64) -> Shape {
        match self {
            Self::Small => Shape::small(seed),
            Self::Large => Shape::LARGE,
        }
    }

    /// How many seeds are played; more of them nightly.
    fn seeds(self) -> u64 {
        let nightly = std::env::var_os("LONGTAKE_NIGHTLY").is_some();
        match (self, nightly) {
            (Self::Small, false) => 200,
            (Self::Small, true) => 1_980,
            (Self::Large, false) => 1,
            (Self::Large, true) => 20,
        }
    }

    /// How one of its histories is asked for.
    fn replay(self, seed: u64) -> String {
        match self {
            Self::Small => format!("{REPLAY}={seed}"),
            Self::Large => format!("{REPLAY}=large:{seed}"),
        }
    }
}

/// Names the one history to play.
const REPLAY: &str = "LONGTAKE_SIMULATION";

/// The history that is asked for, if one is.
fn replayed() -> Option<(Scale, u64)> {
    let asked = std::env::var(REPLAY).ok()?;
    let (scale, seed) = match asked.strip_prefix("large:") {
        Some(seed) => (Scale::Large, seed),
        None => (Scale::Small, asked.as_str()),
    };
    let seed = seed.parse().unwrap_or_else(|_| panic!("{REPLAY}=`{asked}` is neither SEED nor large:SEED"));
    Some((scale, seed))
}

/// What a history came to.
#[derive(Debug, PartialEq, Eq)]
struct Played {
    digest: blake3::Hash,
    happenings: u64,
    steps: u64,
    generations: u64,
    /// Why the run has failed for good, if it has.
    gave_up: Option<String>,
}

fn play(seed: u64, shape: Shape, tell: bool) -> Played {
    play_with(None, seed, shape, tell)
}

fn play_with(bug: Option<Bug>, seed: u64, shape: Shape, tell: bool) -> Played {
    let mut world = World::new(bug, seed, shape, tell);
    world.run_until(shape.faulty);
    world.heal();
    let before = world.judge.steps;
    world.run_until(shape.faulty + shape.calm);
    assert!(
        world.is_over() || world.judge.steps > before,
        "seed {seed}: the run stands still although nothing fails any more\n{}",
        world.describe()
    );
    if !world.is_over() {
        world.judge_processes();
    }
    Played {
        digest: world.digest(),
        happenings: world.happenings(),
        steps: world.judge.steps,
        generations: world.judge.generations(),
        gave_up: match &world.outcome {
            Some(Outcome::Failed { cause, .. }) => Some(cause.clone()),
            _ => None,
        },
    }
}

/// Plays seeds on all cores; a failing one is named.
fn play_all(scale: Scale) -> Vec<Played> {
    let next = std::sync::atomic::AtomicU64::new(0);
    let played = std::sync::Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= scale.seeds() {
                        return;
                    }
                    let one = std::panic::catch_unwind(|| play(seed, scale.shape(seed), false));
                    match one {
                        Ok(one) => {
                            if let Some(cause) = &one.gave_up {
                                eprintln!("{} gave up: {cause}", scale.replay(seed));
                            }
                            played.lock().unwrap().push(one);
                        }
                        Err(panic) => {
                            eprintln!("play it alone with {}", scale.replay(seed));
                            std::panic::resume_unwind(panic);
                        }
                    }
                }
            });
        }
    });
    played.into_inner().unwrap()
}

/// Plays all seeds of a scale, or the one that is asked for.
fn suite(scale: Scale) -> Vec<Played> {
    if let Some((asked, seed)) = replayed() {
        if asked == scale {
            eprintln!("{:?}", play(seed, scale.shape(seed), true));
        }
        return Vec::new();
    }
    let begun = Instant::now();
    let played = play_all(scale);
    let sum = |of: fn(&Played) -> u64| played.iter().map(of).sum::<u64>();
    let gave_up = played.iter().filter(|one| one.gave_up.is_some()).count();
    eprintln!(
        "{scale:?}: {} seeds, {} happenings, {} steps, {} generations, {gave_up} gave up, in {:.1} s",
        played.len(),
        sum(|one| one.happenings),
        sum(|one| one.steps),
        sum(|one| one.generations),
        begun.elapsed().as_secs_f64()
    );
    // Three faults in a row may honestly hit three generations before their first step; an engine that gives up too easily
    // would pass for one that gets on.
    assert!(gave_up * GIVES_UP_ONE_IN <= played.len(), "{gave_up} of {} runs gave up", played.len());
    played
}

/// At most one run in so many may run out of patience.
const GIVES_UP_ONE_IN: usize = 50;

#[test]
fn small_clusters_keep_the_invariants_and_get_on() {
    let played = suite(Scale::Small);
    let generations: u64 = played.iter().map(|one| one.generations).sum();
    assert!(generations >= 3 * played.len() as u64, "faults do happen");
}

#[test]
fn large_clusters_keep_the_invariants_and_get_on() {
    suite(Scale::Large);
}

#[test]
fn a_seed_plays_the_same_history_again() {
    for seed in [3, 7] {
        assert_eq!(play(seed, Shape::small(seed), false), play(seed, Shape::small(seed), false));
    }
}
