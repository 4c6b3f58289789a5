//! Which slots may be written: never one that a durable row, or a snapshot, still points at.
//!
//! A slot's way back: its row is replaced -> the batch that says so becomes durable -> no snapshot that was taken before
//! is left -> free.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Slots whose rows were replaced together, with the number of snapshots taken until then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Freed {
    /// Snapshots of lower number may point at the slots.
    pub(super) before: u64,
    /// The slots.
    pub(super) slots: Vec<u64>,
}

/// Slots whose release became durable, handed over from the thread that writes the ledger.
pub(super) type Settled = Arc<Mutex<Vec<Freed>>>;

/// Snapshots that are still held somewhere.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<PinState>);

#[derive(Debug, Default)]
struct PinState {
    taken: u64,
    live: BTreeSet<u64>,
}

/// Keeps every slot that is in use now from being written, until it is dropped.
#[derive(Debug)]
pub(super) struct Pin {
    pins: Arc<Pins>,
    number: u64,
}

impl Pins {
    fn state(&self) -> std::sync::MutexGuard<'_, PinState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pins all slots that are in use now.
    pub(super) fn pin(self: &Arc<Self>) -> Pin {
        let mut state = self.state();
        let number = state.taken;
        state.taken += 1;
        state.live.insert(number);
        Pin { pins: Arc::clone(self), number }
    }

    /// Snapshots taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.state().taken
    }

    fn oldest(&self) -> Option<u64> {
        self.state().live.first().copied()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.state().live.remove(&self.number);
    }
}

/// Free slots as runs of neighbours, and slots on their way to being free.
#[derive(Debug)]
pub(super) struct Slots {
    /// Start and length; neighbouring runs are merged.
    free: BTreeMap<u64, u64>,
    /// One past the last slot ever given out.
    end: u64,
    /// Durably released, but perhaps pinned.
    held: Vec<Freed>,
    settled: Settled,
    pins: Arc<Pins>,
}

impl Slots {
    /// All slots below the highest used one are free unless used.
    pub(super) fn new(used: &BTreeSet<u64>) -> Self {
        let mut slots = Self {
            free: BTreeMap::new(),
            end: used.last().map_or(0, |last| last + 1),
            held: Vec::new(),
            settled: Settled::default(),
            pins: Arc::default(),
        };
        let mut next = 0;
        for slot in used {
            if *slot > next {
                slots.free.insert(next, slot - next);
            }
            next = slot + 1;
        }
        slots
    }

    /// Where the ledger's thread puts what it has made durable.
    pub(super) fn settled(&self) -> Settled {
        Arc::clone(&self.settled)
    }

    /// The snapshots.
    pub(super) fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    /// One past the last slot ever given out: how long the slab has become.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Slots for so many rows: one run where one is long enough, else several, else the slab grows.
    pub(super) fn allocate(&mut self, count: u64) -> Vec<Range<u64>> {
        self.reclaim();
        if let Some(start) = self.free.iter().find(|(_, length)| **length >= count).map(|(start, _)| *start) {
            return vec![self.take(start, count)];
        }
        let mut left = count;
        let mut runs = Vec::new();
        while left > 0 {
            let Some((start, length)) = self.free.first_key_value().map(|(start, length)| (*start, *length))
            else {
                runs.push(self.end..self.end + left);
                self.end += left;
                break;
            };
            let taken = left.min(length);
            runs.push(self.take(start, taken));
            left -= taken;
        }
        runs
    }

    /// Gives back slots that were allocated and then not used.
    pub(super) fn give_back(&mut self, runs: Vec<Range<u64>>) {
        for run in runs {
            self.insert(run.start, run.end - run.start);
        }
    }

    fn take(&mut self, start: u64, count: u64) -> Range<u64> {
        if let Some(length) = self.free.remove(&start)
            && length > count
        {
            self.free.insert(start + count, length - count);
        }
        start..start + count
    }

    fn insert(&mut self, mut start: u64, mut count: u64) {
        if let Some((before, length)) = self.free.range(..start).next_back().map(|(s, l)| (*s, *l))
            && before + length == start
        {
            self.free.remove(&before);
            start = before;
            count += length;
        }
        if let Some(length) = self.free.remove(&(start + count)) {
            count += length;
        }
        self.free.insert(start, count);
    }

    /// Frees what is durably released and not pinned.
    fn reclaim(&mut self) {
        self.held.append(&mut self.settled.lock().unwrap_or_else(PoisonError::into_inner));
        let oldest = self.pins.oldest();
        let (free, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|freed: &Freed| oldest.is_none_or(|oldest| freed.before <= oldest));
        self.held = held;
        for freed in free {
            for slot in freed.slots {
                self.insert(slot, 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(slots: &Slots, before: u64, freed: &[u64]) {
        slots.settled().lock().unwrap().push(Freed { before, slots: freed.to_vec() });
    }

    #[test]
    fn runs_are_kept_together_and_merged() {
        let mut slots = Slots::new(&BTreeSet::from([0, 1, 5]));
        assert_eq!(slots.allocate(2), [2..4]);
        settle(&slots, 0, &[3, 1, 2]);
        assert_eq!(slots.allocate(4), [1..5], "4 was free already");
        assert_eq!(slots.allocate(3), [6..9]);
        slots.give_back(vec![6..7, 8..9]);
        assert_eq!(slots.allocate(3), [6..7, 8..9, 9..10]);
        assert_eq!(slots.end(), 10);
    }

    #[test]
    fn pinned_slots_wait_for_every_older_snapshot() {
        let mut slots = Slots::new(&BTreeSet::from([0, 1, 2]));
        let first = slots.pins().pin();
        settle(&slots, slots.pins().taken(), &[0]);
        let second = slots.pins().pin();
        settle(&slots, slots.pins().taken(), &[1]);
        assert_eq!(slots.allocate(1), [3..4], "both are pinned");
        drop(first);
        assert_eq!(slots.allocate(1), [0..1], "the second snapshot was taken after 0 was released");
        assert_eq!(slots.allocate(1), [4..5]);
        drop(second);
        assert_eq!(slots.allocate(1), [1..2]);
    }
}
