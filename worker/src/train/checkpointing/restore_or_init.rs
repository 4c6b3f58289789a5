//! Where a worker begins that goes on from nothing it holds: at the newest checkpoint, or at the start of the run.

use longtake_shared::checkpoint::{Counters, Manifest};
use longtake_shared::ids::LaneId;
use longtake_shared::protocol::SavedStage;

use crate::model::backbone::{Backbone, import};
use crate::model::classifier::Classifier;
use crate::model::detector::Detector;
use crate::model::layers::Init;
use crate::train::TrainError;
use crate::train::checkpointing::save::Archive;
use crate::train::memory::lane_memory::LaneMemory;
use crate::train::run::context::RunContext;
use crate::train::state::worker_state::{Pretraining, State, Training, WorkerState};
use crate::train::step::learner::{Learner, StageLength};

/// Loads the newest checkpoint of the assignment, or makes the first state. Bit for bit what any other worker loads.
///
/// # Errors
/// A checkpoint that cannot be read or does not fit, or the generation was aborted; the worker_state are then empty.
pub fn begin(run: &RunContext, worker_state: &mut WorkerState, archive: &Archive) -> Result<(), TrainError> {
    let old = worker_state.state.take();
    if let Some(memory) = &mut worker_state.memory {
        memory.invalidate();
    }
    let state = match &run.newest {
        None => first_state(run)?,
        Some(manifest) => restored(run, archive, manifest, old.as_ref())?,
    };
    if matches!(state, State::Train(_)) {
        let memory = LaneMemory::of(&mut worker_state.memory, run)?;
        for &lane in run.own_lanes() {
            run.collective.check()?;
            recall_lane(run, archive, memory, lane)?;
            memory.settle(lane);
        }
    }
    worker_state.state = Some(state);
    Ok(())
}

/// Gives a lane the rows of the newest checkpoint, or none where that has none.
fn recall_lane(
    run: &RunContext,
    archive: &Archive,
    memory: &mut LaneMemory,
    lane: LaneId,
) -> Result<(), TrainError> {
    match run.newest_of_training().filter(|manifest| !manifest.memory.is_empty()) {
        None => memory.begin_empty(run, lane),
        Some(manifest) => {
            memory.begin(run, lane)?;
            archive.restore_lane(manifest, lane, &mut memory.store)
        }
    }
}

fn first_state(run: &RunContext) -> Result<State, TrainError> {
    if run.place.config.pretrain.steps > 0 {
        let learner = blank_classifier(run, None)?;
        return Ok(State::Pretrain(Box::new(Pretraining { learner, counters: Counters::default() })));
    }
    first_training(run, starting_backbone(run)?)
}

/// The training stage at its first step, with this backbone.
/// # Errors
/// Settings that freeze parameters the model does not have.
pub fn first_training(run: &RunContext, backbone: Option<Backbone>) -> Result<State, TrainError> {
    let mut detector = new_detector(run);
    if let Some(backbone) = backbone {
        detector.backbone = backbone;
    }
    Ok(State::Train(Box::new(Training::new(detector_learner(run, detector)?))))
}

fn restored(
    run: &RunContext,
    archive: &Archive,
    manifest: &Manifest,
    old: Option<&State>,
) -> Result<State, TrainError> {
    let restored = archive.load(run, manifest)?;
    match manifest.stage {
        SavedStage::Pretrain => {
            let mut learner = blank_classifier(run, old)?;
            restored.require_same(run, manifest, learner.layout())?;
            learner.restore(&restored.tensors, &restored.optimizer, manifest.step, &run.place.device)?;
            Ok(State::Pretrain(Box::new(Pretraining { learner, counters: manifest.counters })))
        }
        SavedStage::Train => {
            let mut learner = blank_detector(run, old)?;
            restored.require_same(run, manifest, learner.layout())?;
            learner.restore(&restored.tensors, &restored.optimizer, manifest.step, &run.place.device)?;
            let mut state = Training::new(learner);
            state.counters = manifest.counters;
            state.validated = crate::train::checkpointing::save::validated(manifest);
            Ok(State::Train(Box::new(state)))
        }
    }
}

/// A classifier whose values are to be replaced, at its first step; what this worker has so far lends its shape.
///
/// # Errors
/// The file of starting weights does not fit.
pub fn blank_classifier(run: &RunContext, old: Option<&State>) -> Result<Learner<Classifier>, TrainError> {
    if let Some(State::Pretrain(old)) = old {
        return Ok(old.learner.clone());
    }
    let init = Init::new(&run.place.device, run.place.root.child("init", 0));
    let mut model = Classifier::new(&run.place.config.model, run.place.dataset.classes.len(), &init);
    if let Some(backbone) = starting_backbone(run)? {
        model.backbone = backbone;
    }
    let steps = run.place.config.pretrain.steps;
    let length = StageLength { steps, steps_per_epoch: steps };
    Ok(Learner::new(model, &run.place.config.pretrain.optim, length, &[])?)
}

/// A detector whose values are to be replaced; the state that this worker has so far serves as its template.
///
/// # Errors
/// Settings that freeze parameters the model does not have.
pub fn blank_detector(run: &RunContext, old: Option<&State>) -> Result<Learner<Detector>, TrainError> {
    match old {
        Some(State::Train(old)) => Ok(old.learner.clone()),
        _ => detector_learner(run, new_detector(run)),
    }
}

fn new_detector(run: &RunContext) -> Detector {
    let init = Init::new(&run.place.device, run.place.root.child("init", 0));
    Detector::new(&run.place.config, run.place.dataset.classes.len(), &init)
}

fn detector_learner(run: &RunContext, detector: Detector) -> Result<Learner<Detector>, TrainError> {
    let length =
        StageLength { steps: run.place.total_steps(), steps_per_epoch: run.place.lanes.steps_per_epoch() };
    let frozen = Backbone::frozen_prefixes(&run.place.config.model.backbone);
    let frozen: Vec<String> = frozen.iter().map(|prefix| format!("backbone.{prefix}")).collect();
    Ok(Learner::new(detector, &run.place.config.optim, length, &frozen)?)
}

/// The backbone of the weights file in the settings, if there is one.
fn starting_backbone(run: &RunContext) -> Result<Option<Backbone>, TrainError> {
    let config = &run.place.config.model.backbone;
    if config.weights.is_empty() {
        return Ok(None);
    }
    let init = Init::new(&run.place.device, run.place.root.child("init", 0)).field("backbone");
    let (backbone, report) =
        import::load_into(Backbone::new(config, &init), config.weights.as_ref(), config.weights_may_lack)?;
    tracing::info!(weights = %config.weights, ?report, "backbone loaded");
    Ok(Some(backbone))
}
