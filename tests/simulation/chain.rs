//! The chain of checkpoints as the object store keeps it: append by create-if-absent, under a fence.

use longtake_coordinator::run::command::CommitRequest;
use longtake_shared::ids::{Generation, Incarnation, Step};
use longtake_shared::protocol::SavedStage;

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) incarnation: Incarnation,
    pub(crate) generation: Generation,
    pub(crate) stage: SavedStage,
    pub(crate) step: Step,
    pub(crate) damaged: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Chain {
    fence: u64,
    pub(crate) entries: Vec<Entry>,
}

impl Chain {
    /// Wins the next incarnation.
    pub(crate) fn fence(&mut self) -> Incarnation {
        self.fence += 1;
        Incarnation(self.fence)
    }

    /// Appends, unless a newer incarnation has taken over. What is appended is whole.
    pub(crate) fn append(&mut self, request: &CommitRequest, fenced: bool) -> Result<u64, String> {
        if fenced && request.incarnation.0 < self.fence {
            return Err(format!("{} has been replaced", request.incarnation));
        }
        assert_eq!(request.parts.len(), request.lanes.len(), "a checkpoint has the parts of every rank");
        for (rank, part) in request.parts.iter().enumerate() {
            let of = (part["rank"].as_u64(), part["step"].as_u64(), part["generation"].as_u64());
            let expected = (Some(rank as u64), Some(request.step.0), Some(request.generation.0));
            assert_eq!(of, expected, "every part is of the same step and generation");
        }
        let last = self.entries.last();
        assert!(
            last.is_none_or(|last| last.incarnation <= request.incarnation),
            "incarnations never fall along the chain"
        );
        let again = |last: &Entry| (last.generation, last.step) == (request.generation, request.step);
        assert!(last.is_none_or(|last| !again(last) || last.damaged), "nothing is committed twice");
        self.entries.push(Entry {
            incarnation: request.incarnation,
            generation: request.generation,
            stage: request.stage,
            step: request.step,
            damaged: false,
        });
        Ok(self.entries.len() as u64)
    }

    /// The newest that is whole, with its place in the chain.
    pub(crate) fn newest(&self) -> Option<(u64, &Entry)> {
        let numbered = (1..).zip(&self.entries);
        numbered.filter(|(_, entry)| !entry.damaged).last()
    }

    /// A bit of the newest one turns over.
    pub(crate) fn damage(&mut self) {
        if let Some(entry) = self.entries.last_mut() {
            entry.damaged = true;
        }
    }

    /// Whether the checkpoint of a step, or of a later one, is in the chain.
    pub(crate) fn holds(&self, stage: SavedStage, step: Step) -> bool {
        self.entries.iter().any(|entry| (entry.stage, entry.step) >= (stage, step))
    }

    /// Whether that one can be read.
    pub(crate) fn is_whole(&self, sequence: u64) -> bool {
        !self.entries[sequence as usize - 1].damaged
    }
}
