//! Virtual time: what happens next, and a generator of numbers that is nothing but its state.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// A generator of numbers (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    /// A length of time between two, in milliseconds.
    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1000 + self.roll() % ((to - from).max(1) * 1000))
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
