//! The phases of a training step.

use serde::{Deserialize, Serialize};

/// A phase of a training step, or of the time between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum StepPhase {
    /// Between two stages, or without an order. Durations before it are not comparable with those after it.
    Idle = 0,
    /// Waits for clips.
    Data = 1,
    /// Computes features of clips without recording gradients.
    Look = 2,
    /// Computes neck, head and loss, recording gradients.
    Judge = 3,
    /// Computes features of clips again, recording gradients.
    Replay = 4,
    /// In a collective operation.
    Reduce = 5,
    /// Applies the optimizer step.
    Move = 6,
    /// Writes new rows into the memory.
    WriteBack = 7,
    /// Takes a snapshot for a checkpoint.
    Save = 8,
    /// Detects in one chunk of a video for a validation.
    Validate = 9,
    /// Waits for the coordinator within a stage: for a commit, or for the report of a validation.
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
    /// Its name in JSON and on the wire.
    pub fn name(self) -> &'static str {
        PHASES[self as usize].1
    }

    /// The phase with that name.
    pub fn named(name: &str) -> Option<Self> {
        PHASES.iter().find(|(_, known)| *known == name).map(|(phase, _)| *phase)
    }

    /// The phase with that number, as stored in flight recorders.
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
