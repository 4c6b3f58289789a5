//! Where a worker begins that goes on from nothing it holds: at the newest checkpoint, or at the start of the run.

use longtake_shared::checkpoint::{Counters, Manifest};
use longtake_shared::ids::LaneId;
use longtake_shared::protocol::SavedStage;

use super::TrainError;
use super::context::RunContext;
use super::holdings::{Holdings, Pretraining, State, Training};
use super::lane_memory::LaneMemory;
use super::learner::{Learner, StageLength};
use super::pretrain::Classifier;
use super::save::Archive;
use crate::model::backbone::{VideoSwin, frozen, import};
use crate::model::detector::Detector;
use crate::model::layers::Init;

/// Loads the newest checkpoint of the assignment, or makes the first state. Bit for bit what any other worker loads.
///
/// # Errors
/// A checkpoint that cannot be read or does not fit, or the generation was aborted; the holdings are then empty.
pub fn begin(run: &RunContext, holdings: &mut Holdings, archive: &Archive) -> Result<(), TrainError> {
    let old = holdings.state.take();
    if let Some(memory) = &mut holdings.memory {
        memory.invalidate();
    }
    let state = match &run.newest {
        None => first_state(run)?,
        Some(manifest) => restored(run, archive, manifest, old.as_ref())?,
    };
    if matches!(state, State::Train(_)) {
        let memory = LaneMemory::of(&mut holdings.memory, run)?;
        for &lane in run.own_lanes() {
            run.collective.check()?;
            recall_lane(run, archive, memory, lane)?;
            memory.settle(lane);
        }
    }
    holdings.state = Some(state);
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
    if run.config.pretrain.steps > 0 {
        let learner = blank_classifier(run, None)?;
        return Ok(State::Pretrain(Box::new(Pretraining { learner, counters: Counters::default() })));
    }
    Ok(first_training(run, starting_backbone(run)?))
}

/// The training stage at its first step, with this backbone.
pub fn first_training(run: &RunContext, backbone: Option<VideoSwin>) -> State {
    let mut detector = new_detector(run);
    if let Some(backbone) = backbone {
        detector.backbone = backbone;
    }
    State::Train(Box::new(Training::new(detector_learner(run, detector))))
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
            learner.restore(&restored.tensors, &restored.optimizer, manifest.step, &run.device)?;
            Ok(State::Pretrain(Box::new(Pretraining { learner, counters: manifest.counters })))
        }
        SavedStage::Train => {
            let mut learner = blank_detector(run, old);
            restored.require_same(run, manifest, learner.layout())?;
            learner.restore(&restored.tensors, &restored.optimizer, manifest.step, &run.device)?;
            let mut state = Training::new(learner);
            state.counters = manifest.counters;
            state.validated = super::save::validated(manifest);
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
    let init = Init::new(&run.device, run.root.child("init", 0));
    let mut model = Classifier::new(&run.config.model.backbone, run.dataset.classes.len(), &init);
    if let Some(backbone) = starting_backbone(run)? {
        model.backbone = backbone;
    }
    let steps = run.config.pretrain.steps;
    let length = StageLength { steps, steps_per_epoch: steps };
    Ok(Learner::new(model, &run.config.pretrain.optim, length, |_| false))
}

/// A detector whose values are to be replaced; what this worker has so far lends its shape.
pub fn blank_detector(run: &RunContext, old: Option<&State>) -> Learner<Detector> {
    match old {
        Some(State::Train(old)) => old.learner.clone(),
        _ => detector_learner(run, new_detector(run)),
    }
}

fn new_detector(run: &RunContext) -> Detector {
    let init = Init::new(&run.device, run.root.child("init", 0));
    Detector::new(&run.config, run.dataset.classes.len(), &init)
}

fn detector_learner(run: &RunContext, detector: Detector) -> Learner<Detector> {
    let length = StageLength { steps: run.total_steps(), steps_per_epoch: run.lanes.steps_per_epoch() };
    let frozen_stages = run.config.model.backbone.frozen_stages;
    let is_frozen =
        |path: &str| path.strip_prefix("backbone.").is_some_and(|path| frozen(path, frozen_stages));
    Learner::new(detector, &run.config.optim, length, is_frozen)
}

/// The backbone of the weights file in the settings, if there is one.
fn starting_backbone(run: &RunContext) -> Result<Option<VideoSwin>, TrainError> {
    let config = &run.config.model.backbone;
    if config.weights.is_empty() {
        return Ok(None);
    }
    let init = Init::new(&run.device, run.root.child("init", 0)).field("backbone");
    let (backbone, report) =
        import::load_into(VideoSwin::new(config, &init), config.weights.as_ref(), config.weights_may_lack)?;
    tracing::info!(weights = %config.weights, ?report, "backbone loaded");
    Ok(Some(backbone))
}
