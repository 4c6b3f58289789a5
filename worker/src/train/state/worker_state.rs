//! What a worker holds from one generation to the next. Only a committed step changes it, so an abort finds it whole.

use longtake_shared::checkpoint::Counters;
use longtake_shared::ids::Step;

use crate::control::{Kept, SavedStage};
use crate::model::classifier::Classifier;
use crate::model::detector::Detector;
use crate::train::checkpointing::save::Facts;
use crate::train::memory::lane_memory::LaneMemory;
use crate::train::memory::write_back::PendingRows;
use crate::train::run::report::StepNumbers;
use crate::train::step::learner::Learner;

/// What a worker goes on from when its generation ends.
#[derive(Debug, Default)]
pub struct WorkerState {
    /// What learns; nothing in a process that has not loaded any, and while it loads.
    pub state: Option<State>,
    /// The long memory of its lanes, once it has any.
    pub memory: Option<LaneMemory>,
}

/// What learns, in the stage that the run is in.
#[derive(Debug)]
pub enum State {
    /// The backbone, as a classifier.
    Pretrain(Box<Pretraining>),
    /// The detector.
    Train(Box<Training>),
}

/// The first stage at a step boundary.
#[derive(Debug, Clone)]
pub struct Pretraining {
    /// Model, optimizer, step.
    pub learner: Learner<Classifier>,
    /// What was skipped so far.
    pub counters: Counters,
}

/// The training stage at a step boundary.
#[derive(Debug, Clone)]
pub struct Training {
    /// Model, optimizer, step.
    pub learner: Learner<Detector>,
    /// What was skipped so far.
    pub counters: Counters,
    /// The last step whose validation came to its end.
    pub validated: Option<Step>,
    /// What that validation came to, where this process or one it goes on from has made it.
    pub average_map: Option<f64>,
    /// The numbers of the newest step.
    pub newest: Option<StepNumbers>,
    /// Rows of the step that the ranks were agreeing on. Others may have committed it where this rank was aborted.
    pub pending: Option<PendingRows>,
}

impl Training {
    /// At the first step.
    pub fn new(learner: Learner<Detector>) -> Self {
        Self {
            learner,
            counters: Counters::default(),
            validated: None,
            average_map: None,
            newest: None,
            pending: None,
        }
    }

    /// What a checkpoint holds of it besides tensors.
    pub fn facts(&self) -> Facts {
        Facts { counters: self.counters, validated: self.validated, average_map: self.average_map }
    }
}

impl State {
    /// The stage.
    pub fn stage(&self) -> SavedStage {
        match self {
            Self::Pretrain(_) => SavedStage::Pretrain,
            Self::Train(_) => SavedStage::Train,
        }
    }

    /// Steps of the stage that are committed.
    pub fn step(&self) -> Step {
        match self {
            Self::Pretrain(state) => state.learner.step,
            Self::Train(state) => state.learner.step,
        }
    }
}

impl WorkerState {
    /// What this worker says when it leaves a generation.
    pub fn kept(&self) -> Option<Kept> {
        let state = self.state.as_ref()?;
        let stage = state.stage();
        let memory = self.memory.as_ref().filter(|_| stage == SavedStage::Train);
        let lanes = memory.map(LaneMemory::held).unwrap_or_default();
        let copies = memory.map(|memory| memory.copies.lanes()).unwrap_or_default();
        Some(Kept { stage, step: state.step(), lanes, copies })
    }
}
