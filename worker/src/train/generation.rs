//! From the assignment to the last word of a generation: pretrain, fill the memory, train.

use std::sync::Arc;
use std::time::{Duration, Instant};

use longtake_shared::checkpoint::{Counters, Manifest, Stage as SavedStage};
use longtake_shared::config::MemoryInit;
use longtake_shared::ids::Step;

use super::agree::Control;
use super::context::RunContext;
use super::learner::{Learner, StageLength};
use super::pretrain::{self, Classifier};
use super::save::{Facts, Restored, Saver, Snapshot};
use super::trainer::Trainer;
use super::{TrainError, extract};
use crate::collective::{Aborter, Collective, Local, Membership, RingListener, SharedCollective};
use crate::control::{Assignment, Directive, Ending, Session};
use crate::model::backbone::{VideoSwin, frozen, import};
use crate::model::detector::Detector;
use crate::model::layers::Init;
use crate::model::memory::MemoryStore;

/// How long peers of a generation may take to reach each other.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// Plays this worker's part of a generation to its end.
///
/// # Errors
/// Whatever ends it early; [`TrainError::Collective`] where the cause lies elsewhere.
pub fn run(
    session: &Arc<Session>,
    listener: &RingListener,
    assignment: Assignment,
) -> Result<(Ending, Step), TrainError> {
    let generation = assignment.generation;
    let collective = connect(session, listener, &assignment)?;
    let manifest: Option<Manifest> =
        assignment.resume.clone().map(serde_json::from_value).transpose().map_err(TrainError::Manifest)?;
    let run = RunContext::open(Arc::clone(session), assignment, collective)?;
    let mut saver = Saver::open(&run)?;
    let restored = manifest.map(|manifest| saver.load(manifest)).transpose()?;
    session.ready(generation)?;
    loop {
        match session.next_directive()? {
            Directive::Train { generation: started } if started == generation => break,
            Directive::Abort { generation: over, reason } if over == generation => {
                return Err(crate::collective::CollectiveError::Aborted { reason }.into());
            }
            _ => {}
        }
    }
    stages(&run, &mut saver, restored)
}

/// Reaches the peers of a generation; an abort of the generation ends the attempt, and later every pending call.
fn connect(
    session: &Session,
    listener: &RingListener,
    assignment: &Assignment,
) -> Result<SharedCollective, TrainError> {
    let aborter = Aborter::new()?;
    let on_abort = aborter.clone();
    session.on_abort(Box::new(move |_, reason| on_abort.abort(reason)));
    let collective: Box<dyn Collective> = if assignment.world == 1 {
        Box::new(Local::new(assignment.generation, aborter))
    } else {
        let membership = Membership {
            run: assignment.run.clone(),
            generation: assignment.generation,
            rank: assignment.rank,
        };
        let deadline = Instant::now() + CONNECT_DEADLINE;
        Box::new(listener.connect(&membership, &assignment.peers, deadline, aborter)?)
    };
    Ok(SharedCollective::new(collective))
}

fn stages<'a>(
    run: &'a RunContext,
    saver: &'a mut Saver<'a>,
    restored: Option<Restored>,
) -> Result<(Ending, Step), TrainError> {
    let mut counters = restored.as_ref().map(|restored| restored.manifest.counters).unwrap_or_default();
    let (in_pretrain, in_train) = match restored {
        Some(restored) if restored.manifest.stage == SavedStage::Train => (None, Some(restored)),
        other => (other, None),
    };
    let backbone = if in_train.is_some() {
        None
    } else if run.config.pretrain.steps > 0 {
        match pretrain_stage(run, saver, in_pretrain, &mut counters)? {
            (learnt, Ending::Completed) => Some(learnt.module.backbone),
            (learnt, Ending::Stopped) => return Ok((Ending::Stopped, learnt.step)),
        }
    } else {
        starting_backbone(run)?
    };
    if run.total_steps() == 0 {
        saver.finish()?;
        return Ok((Ending::Completed, Step(run.config.pretrain.steps)));
    }

    let mut detector = Detector::new(
        &run.config,
        run.dataset.classes.len(),
        &Init::new(&run.device, run.root.child("init", 0)),
    );
    if let Some(backbone) = backbone {
        detector.backbone = backbone;
    }
    let length = StageLength { steps: run.total_steps(), steps_per_epoch: run.lanes.steps_per_epoch() };
    let frozen_stages = run.config.model.backbone.frozen_stages;
    let is_frozen =
        |path: &str| path.strip_prefix("backbone.").is_some_and(|path| frozen(path, frozen_stages));
    let mut learner = Learner::new(detector, &run.config.optim, length, is_frozen);
    let mut store = open_store(run)?;
    let mut validated = None;
    let mut remembers = false;
    if let Some(restored) = in_train {
        restored.require_same(run, learner.layout())?;
        learner.restore(&restored.tensors, &restored.optimizer, restored.manifest.step, &run.device)?;
        validated = restored.validated();
        remembers = saver.restore_memory(&restored.manifest, run.own_lanes(), &mut store)?;
    }
    if learner.step == Step(0) && !remembers && run.config.memory.init == MemoryInit::Extract {
        let filled = extract::fill(run, &learner.module.backbone, &mut store)?;
        let stop = Control { stop: f32::from(u8::from(!filled)), ..Control::default() };
        if stop.sum(&run.collective)?.stop > 0.0 {
            let facts = Facts { counters, validated, average_map: None };
            saver.start(Snapshot::take(run, SavedStage::Train, &learner, None, facts)?)?;
            saver.finish()?;
            return Ok((Ending::Stopped, learner.step));
        }
    }
    Trainer { run, steps: run.step_settings(), learner, store, counters, saver, validated, average_map: None }
        .train()
}

/// The backbone as a classifier of trimmed clips.
fn pretrain_stage(
    run: &RunContext,
    saver: &mut Saver<'_>,
    restored: Option<Restored>,
    counters: &mut Counters,
) -> Result<(Learner<Classifier>, Ending), TrainError> {
    let init = Init::new(&run.device, run.root.child("init", 0));
    let mut model = Classifier::new(&run.config.model.backbone, run.dataset.classes.len(), &init);
    if let Some(backbone) = starting_backbone(run)? {
        model.backbone = backbone;
    }
    let steps = run.config.pretrain.steps;
    let length = StageLength { steps, steps_per_epoch: steps };
    let mut learner = Learner::new(model, &run.config.pretrain.optim, length, |_| false);
    if let Some(restored) = restored {
        restored.require_same(run, learner.layout())?;
        learner.restore(&restored.tensors, &restored.optimizer, restored.manifest.step, &run.device)?;
    }
    let ending = pretrain::train(run, &mut learner, counters, saver)?;
    Ok((learner, ending))
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

/// This worker's slice of the memory, in a folder of its generation: what it held before is in the checkpoint.
fn open_store(run: &RunContext) -> Result<MemoryStore, TrainError> {
    let assignment = &run.assignment;
    let folder = assignment
        .run_folder
        .join("memory")
        .join(format!("{}-rank{}", assignment.generation, assignment.rank.0));
    let channels = run.config.model.backbone.channels();
    let (mut store, warnings) = MemoryStore::open(&folder, channels, run.config.memory.dtype)?;
    for warning in warnings {
        run.session.warning(assignment.generation, warning.to_string())?;
    }
    for &lane in run.own_lanes() {
        let videos = run.lanes.videos(lane);
        let rows: Result<Vec<_>, TrainError> =
            videos.iter().map(|&video| Ok((video, run.rows(video)?))).collect();
        store.add_lane(lane, &rows?)?;
    }
    Ok(store)
}
