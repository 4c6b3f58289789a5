//! What must hold of a whole cluster, whatever its coordinators believe. What holds of one engine is asserted by the engine.

use std::collections::BTreeSet;

use longtake_shared::ids::{Generation, Incarnation, LaneId};

#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// Steps that were taken.
    pub(crate) steps: u64,
    /// Generations that were formed.
    pub(crate) generations: u64,
    formed: Generation,
    stepped: Generation,
    incarnation: Incarnation,
}

impl Judge {
    /// A worker hears of a generation. Numbers rise strictly with each change of membership, across restarts.
    pub(crate) fn formed(&mut self, generation: Generation) {
        if generation > self.formed {
            self.formed = generation;
            self.generations += 1;
        }
    }

    /// All members of a generation take a step. One generation lives: none that is older ever steps again.
    pub(crate) fn stepped(&mut self, generation: Generation, lanes: &[Vec<LaneId>], all: usize) {
        assert!(generation >= self.stepped, "{generation} takes a step after {} has", self.stepped);
        self.stepped = generation;
        self.steps += 1;
        let owned: BTreeSet<LaneId> = lanes.iter().flatten().copied().collect();
        assert_eq!(owned.len(), all, "every lane has an owner");
        assert_eq!(lanes.iter().map(Vec::len).sum::<usize>(), all, "no lane has two");
    }

    /// A coordinator starts.
    pub(crate) fn coordinates(&mut self, incarnation: Incarnation, generation: Generation) {
        assert!(incarnation > self.incarnation, "incarnations rise");
        // A zombie may have announced some that nobody else knows; they stay below those of its successor.
        let first = Generation(generation.0.max((incarnation.0 - 1) * 1000));
        assert!(first >= self.formed, "a coordinator that comes back begins above all that was announced");
        self.incarnation = incarnation;
    }
}
