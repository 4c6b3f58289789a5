//! What learns, as bytes for a rank that is behind: everything but the memory, bit for bit.

use burn::module::Module;
use longtake_shared::checkpoint::Counters;
use longtake_shared::config::OptimConfig;
use longtake_shared::ids::Step;
use longtake_shared::protocol::SavedStage;
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::context::RunContext;
use super::holdings::{Pretraining, State, StepNumbers, Training};
use super::learner::Learner;
use super::save::Facts;
use super::start;
use super::tape::NamedTensor;
use crate::checkpoint::{self, TensorData, TensorFile};
use crate::control::Progress;
use crate::optim::{OptimizerState, Slot};

/// Note in the file that holds [`Note`].
const NOTE: &str = "state";
const MODEL: &str = "model/";
const OPTIMIZER: &str = "optimizer/";

/// What is no tensor.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    stage: SavedStage,
    step: Step,
    updates: u64,
    counters: Counters,
    validated: Option<Step>,
    average_map: Option<f64>,
    /// The numbers of the newest step of the training stage.
    numbers: Option<Progress>,
}

/// A state as bytes.
///
/// # Errors
/// The device cannot be read.
pub fn encode(state: &State) -> Result<Vec<u8>, TrainError> {
    match state {
        State::Pretrain(state) => {
            let facts = Facts { counters: state.counters, ..Facts::default() };
            encode_learner(SavedStage::Pretrain, &state.learner, facts, None)
        }
        State::Train(state) => {
            let numbers = state.newest.as_ref().map(|newest| newest.progress.clone());
            encode_learner(SavedStage::Train, &state.learner, state.facts(), numbers)
        }
    }
}

fn encode_learner<M: Module>(
    stage: SavedStage,
    learner: &Learner<M>,
    facts: Facts,
    numbers: Option<Progress>,
) -> Result<Vec<u8>, TrainError> {
    let optimizer = learner.optimizer_state()?;
    let Facts { counters, validated, average_map } = facts;
    let (step, updates) = (learner.step, optimizer.time);
    let note = Note { stage, step, updates, counters, validated, average_map, numbers };
    let mut file = TensorFile::default();
    file.metadata.insert(NOTE.into(), serde_json::to_string(&note).map_err(TrainError::Handover)?);
    for NamedTensor { name, shape, values } in learner.tensors() {
        let name = format!("{MODEL}{name}");
        file.tensors.push(checkpoint::NamedTensor { name, shape, data: TensorData::F32(values) });
    }
    for Slot { name, values } in optimizer.slots {
        let (name, shape) = (format!("{OPTIMIZER}{name}"), vec![values.len()]);
        file.tensors.push(checkpoint::NamedTensor { name, shape, data: TensorData::F32(values) });
    }
    Ok(file.encode()?)
}

/// The state that [`encode`] gave; what this rank has so far lends its shape.
///
/// # Errors
/// Bytes that are no state, or one of another model.
pub fn decode(run: &RunContext, bytes: &[u8], old: Option<&State>) -> Result<State, TrainError> {
    let file = TensorFile::decode(bytes)?;
    let note = file.metadata.get(NOTE).map_or("", String::as_str);
    let note: Note = serde_json::from_str(note).map_err(TrainError::Handover)?;
    let (mut tensors, mut slots) = (Vec::new(), Vec::new());
    for checkpoint::NamedTensor { name, shape, data } in file.tensors {
        let TensorData::F32(values) = data else { continue };
        if let Some(name) = name.strip_prefix(MODEL) {
            tensors.push(NamedTensor { name: name.to_owned(), shape, values });
        } else if let Some(name) = name.strip_prefix(OPTIMIZER) {
            slots.push(Slot { name: name.to_owned(), values });
        }
    }
    let optimizer = |config: &OptimConfig| OptimizerState { kind: config.kind, time: note.updates, slots };
    match note.stage {
        SavedStage::Pretrain => {
            let mut learner = start::blank_classifier(run, old)?;
            let optimizer = optimizer(&run.config.pretrain.optim);
            learner.restore(&tensors, &optimizer, note.step, &run.device)?;
            Ok(State::Pretrain(Box::new(Pretraining { learner, counters: note.counters })))
        }
        SavedStage::Train => {
            let mut learner = start::blank_detector(run, old);
            learner.restore(&tensors, &optimizer(&run.config.optim), note.step, &run.device)?;
            let mut state = Training::new(learner);
            state.counters = note.counters;
            state.validated = note.validated;
            state.average_map = note.average_map;
            state.newest = note.numbers.map(|progress| StepNumbers { progress, told: false });
            Ok(State::Train(Box::new(state)))
        }
    }
}
