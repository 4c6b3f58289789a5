//! Virtual time: what happens next, and the numbers that a seed draws.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use longtake_shared::random::Key;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// A generator of numbers that a seed fixes.
#[derive(Debug, Clone)]
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Key::root(seed).rng())
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(0..bound.max(1))
    }

    pub(crate) fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    /// A length of time between two, in milliseconds.
    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1000 + self.0.random_range(0..(to - from).max(1) * 1000))
    }
}

/// What is to happen, by time; at the same time, in the order it was planned.
#[derive(Debug)]
pub(crate) struct Scheduler<T> {
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    planned: std::collections::HashMap<u64, T>,
    next: u64,
    pub(crate) now: Duration,
}

impl<T> Scheduler<T> {
    pub(crate) fn new() -> Self {
        Self {
            queue: BinaryHeap::new(),
            planned: std::collections::HashMap::new(),
            next: 0,
            now: Duration::ZERO,
        }
    }

    pub(crate) fn plan(&mut self, after: Duration, happening: T) {
        self.queue.push(Reverse((self.now + after, self.next)));
        self.planned.insert(self.next, happening);
        self.next += 1;
    }

    /// The next happening before `end`, and the time moves there; otherwise the time moves to the end.
    pub(crate) fn next(&mut self, end: Duration) -> Option<T> {
        match self.queue.peek() {
            Some(Reverse((at, number))) if *at <= end => {
                let (at, number) = (*at, *number);
                self.queue.pop();
                self.now = at;
                self.planned.remove(&number)
            }
            _ => {
                self.now = end;
                None
            }
        }
    }
}
