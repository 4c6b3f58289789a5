//! What learns, as bytes for a rank that is behind: everything but the memory, bit for bit.

use burn::module::Module;
use longtake_shared::checkpoint::Counters;
use longtake_shared::config::OptimConfig;
use longtake_shared::ids::Step;
use longtake_shared::protocol::SavedStage;
use serde::{Deserialize, Serialize};

use crate::control::Progress;
use crate::optim::{OptimizerState, Slot};
use crate::tensors::{NamedTensor, TensorFile};
use crate::train::TrainError;
use crate::train::checkpointing::restore_or_init;
use crate::train::checkpointing::save::Facts;
use crate::train::run::context::RunContext;
use crate::train::run::report::StepNumbers;
use crate::train::state::worker_state::{Pretraining, State, Training};
use crate::train::step::learner::Learner;

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
    for tensor in learner.tensors() {
        file.tensors.push(NamedTensor { name: format!("{MODEL}{}", tensor.name), ..tensor });
    }
    for Slot { name, values } in optimizer.slots {
        file.tensors.push(NamedTensor::f32(format!("{OPTIMIZER}{name}"), vec![values.len()], values));
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
    for tensor in file.tensors {
        if let Some(name) = tensor.name.strip_prefix(MODEL) {
            tensors.push(NamedTensor { name: name.to_owned(), ..tensor });
        } else if let Some(name) = tensor.name.strip_prefix(OPTIMIZER) {
            let name = name.to_owned();
            slots.extend(tensor.into_f32().map(|values| Slot { name, values }));
        }
    }
    let optimizer = |config: &OptimConfig| OptimizerState { kind: config.kind, time: note.updates, slots };
    match note.stage {
        SavedStage::Pretrain => {
            let mut learner = restore_or_init::blank_classifier(run, old)?;
            let optimizer = optimizer(&run.place.config.pretrain.optim);
            learner.restore(&tensors, &optimizer, note.step, &run.place.device)?;
            Ok(State::Pretrain(Box::new(Pretraining { learner, counters: note.counters })))
        }
        SavedStage::Train => {
            let mut learner = restore_or_init::blank_detector(run, old)?;
            learner.restore(&tensors, &optimizer(&run.place.config.optim), note.step, &run.place.device)?;
            let mut state = Training::new(learner);
            state.counters = note.counters;
            state.validated = note.validated;
            state.average_map = note.average_map;
            state.newest = note.numbers.map(|progress| StepNumbers { progress, told: false });
            Ok(State::Train(Box::new(state)))
        }
    }
}
