//! The chain of checkpoints as the object store keeps it: append by create-if-absent, under a fence.

use longtake_coordinator::run::command::CommitRequest;
use longtake_shared::ids::{Generation, Incarnation, Step};
use longtake_shared::protocol::Stage;

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) incarnation: Incarnation,
    pub(crate) generation: Generation,
    pub(crate) stage: Stage,
    pub(crate) step: Step,
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
    pub(crate) fn append(&mut self, request: &CommitRequest) -> Result<u64, String> {
        if request.incarnation.0 < self.fence {
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
        assert!(
            last.is_none_or(|last| (last.generation, last.step) != (request.generation, request.step)),
            "nothing is committed twice"
        );
        self.entries.push(Entry {
            incarnation: request.incarnation,
            generation: request.generation,
            stage: request.stage,
            step: request.step,
        });
        Ok(self.entries.len() as u64)
    }

    pub(crate) fn newest(&self) -> Option<(Stage, Step)> {
        self.entries.last().map(|entry| (entry.stage, entry.step))
    }
}
