//! What must hold of a whole cluster, whatever its coordinators believe. What holds of one engine is asserted by the engine.

use std::collections::{BTreeMap, BTreeSet};

use longtake_shared::ids::{Generation, Incarnation, LaneId, WorkerId};

#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// Steps that were taken.
    pub(crate) steps: u64,
    /// What workers have heard of each generation: who formed it, and whose lanes are whose.
    formed: BTreeMap<Generation, (Incarnation, Vec<Vec<LaneId>>)>,
    /// The newest generation that each worker process has entered.
    entered: BTreeMap<WorkerId, Generation>,
    stepped: Generation,
    incarnation: Incarnation,
}

impl Judge {
    /// Generations that were formed.
    pub(crate) fn generations(&self) -> u64 {
        self.formed.len() as u64
    }

    /// A worker hears of a generation. All hear the same of it; numbers rise from one incarnation to the next, whenever they
    /// are heard; each lane has one owner.
    pub(crate) fn formed(
        &mut self,
        generation: Generation,
        incarnation: Incarnation,
        lanes: &[Vec<LaneId>],
        all: usize,
    ) {
        if let Some((by, known)) = self.formed.get(&generation) {
            assert_eq!(*by, incarnation, "{generation} is formed once");
            assert_eq!(known, lanes, "all members of {generation} are told the same lanes");
            return;
        }
        let before = self.formed.range(..generation).next_back();
        let after = self.formed.range(generation..).next();
        assert!(
            before.is_none_or(|(_, (by, _))| *by <= incarnation),
            "{generation} of {incarnation} is too high"
        );
        assert!(
            after.is_none_or(|(_, (by, _))| *by >= incarnation),
            "{generation} of {incarnation} is too low"
        );
        let owned: BTreeSet<LaneId> = lanes.iter().flatten().copied().collect();
        assert_eq!(owned.len(), all, "every lane of {generation} has an owner");
        assert_eq!(lanes.iter().map(Vec::len).sum::<usize>(), all, "no lane of {generation} has two");
        self.formed.insert(generation, (incarnation, lanes.to_vec()));
    }

    /// A worker enters a generation, never one that is older than its last.
    pub(crate) fn entered(&mut self, worker: &WorkerId, generation: Generation) {
        let last = self.entered.insert(worker.clone(), generation).unwrap_or_default();
        assert!(generation > last, "{worker} enters {generation} after {last}");
    }

    /// A checkpoint is in the chain. Only the newest coordinator commits.
    pub(crate) fn committed(&self, incarnation: Incarnation) {
        assert_eq!(incarnation, self.incarnation, "only the newest coordinator commits");
    }

    /// All members of a generation take a step. One generation lives: none that is older ever steps again.
    pub(crate) fn stepped(&mut self, generation: Generation) {
        assert!(generation >= self.stepped, "{generation} takes a step after {} has", self.stepped);
        assert!(self.formed.contains_key(&generation), "{generation} was formed before it takes a step");
        self.stepped = generation;
        self.steps += 1;
    }

    /// A coordinator starts.
    pub(crate) fn coordinates(&mut self, incarnation: Incarnation, generation: Generation) {
        assert!(incarnation > self.incarnation, "incarnations rise");
        // A zombie may have announced some that nobody else knows; they stay below those of its successor.
        let first = Generation(generation.0.max((incarnation.0 - 1) * 1000));
        let newest = self.formed.last_key_value().map(|(newest, _)| *newest).unwrap_or_default();
        assert!(first >= newest, "a coordinator that comes back begins above all that was announced");
        self.incarnation = incarnation;
    }
}
