//! What a worker does within a step, by name.

use serde::{Deserialize, Serialize};

/// What a worker does within a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum StepPhase {
    /// Nothing: between stages, or waiting to be told. What a phase took before it says nothing about what comes.
    Idle = 0,
    /// Waiting for clips.
    Data = 1,
    /// Clips through the backbone without a tape.
    Look = 2,
    /// Neck and head, with a tape.
    Judge = 3,
    /// Clips through the backbone with a tape.
    Replay = 4,
    /// In a collective.
    Reduce = 5,
    /// The optimizer's step.
    Move = 6,
    /// New rows into the memory.
    WriteBack = 7,
    /// A snapshot for a checkpoint.
    Save = 8,
    /// Detecting for a validation, in one chunk of a video.
    Validate = 9,
    /// Waiting for the coordinator within a stage: until a save is in the chain, or a validation has its report.
    Wait = 10,
}

const PHASES: [(StepPhase, &str); 11] = [
    (StepPhase::Idle, "idle"),
    (StepPhase::Data, "data"),
    (StepPhase::Look, "look"),
    (StepPhase::Judge, "judge"),
    (StepPhase::Replay, "replay"),
    (StepPhase::Reduce, "reduce"),
    (StepPhase::Move, "move"),
    (StepPhase::WriteBack, "write_back"),
    (StepPhase::Save, "save"),
    (StepPhase::Validate, "validate"),
    (StepPhase::Wait, "wait"),
];

impl StepPhase {
    /// As it is written in JSON and on the wire.
    pub fn name(self) -> &'static str {
        PHASES[self as usize].1
    }

    /// The phase of that name.
    pub fn named(name: &str) -> Option<Self> {
        PHASES.iter().find(|(_, known)| *known == name).map(|(phase, _)| *phase)
    }

    /// The phase of that number, as flight recorders hold it.
    pub fn numbered(number: u64) -> Option<Self> {
        PHASES.get(usize::try_from(number).ok()?).map(|(phase, _)| *phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_found_by_name_and_number() {
        for (number, (phase, name)) in PHASES.iter().enumerate() {
            assert_eq!(StepPhase::named(name), Some(*phase));
            assert_eq!(StepPhase::numbered(number as u64), Some(*phase));
            assert_eq!(phase.name(), *name);
        }
        assert_eq!(StepPhase::numbered(PHASES.len() as u64), None);
    }
}
