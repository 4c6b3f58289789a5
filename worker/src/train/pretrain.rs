//! The first stage: the backbone as a classifier of trimmed clips, in place of Kinetics weights where none can be had.
//!
//! Takes: trimmed clips `[N, 3, L, H, W]` with a label each. Gives: the gradient of their mean cross-entropy over the
//! global batch. Next: [`crate::train::agree`].

use std::sync::Arc;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData, activation};
use longtake_shared::config::BackboneConfig;
use longtake_shared::dataset::Subset;
use longtake_shared::ids::Step;
use longtake_shared::lanes::initial_assignment;
use longtake_shared::random::Key;
use longtake_shared::units::Seconds;

use super::agree::{Control, Wish, agree};
use super::context::RunContext;
use super::generation::Ended;
use super::holdings::Pretraining;
use super::learner::Learner;
use super::report::Reporter;
use super::rhythm::{Reasons, Rhythm};
use super::sample_ids::SampleIds;
use super::save::{Facts, Saver, Snapshot};
use super::{TrainError, finite, tape};
use crate::control::{Ending, SavedStage, Stage, StepPhase};
use crate::data::loader::LoadError;
use crate::data::prefetch::{Prefetch, Wanted};
use crate::data::trimmed::TrimmedPlanner;
use crate::model::backbone::VideoSwin;
use crate::model::layers::{Init, Linear};
use crate::model::pass::Pass;
use crate::optim::{Flat, OptimError};

/// A backbone and a linear classifier of its mean feature; the last class is "no action".
#[derive(Module, Debug)]
pub struct Classifier {
    /// CLIPS -> FEATURES; the part that is kept.
    pub backbone: VideoSwin,
    /// `[C]` -> `[classes + 1]`.
    pub classifier: Linear,
}

impl Classifier {
    /// A classifier of `classes` actions and of no action.
    pub fn new(config: &BackboneConfig, classes: usize, init: &Init) -> Self {
        Self {
            backbone: VideoSwin::new(config, &init.field("backbone")),
            classifier: Linear::torch(&init.field("classifier"), config.channels(), classes + 1),
        }
    }

    /// # Shapes
    /// clips `[N, 3, L, H, W]` -> logits `[N, classes + 1]`
    pub fn forward(&self, clips: Tensor<5>, pass: Pass<'_>) -> Tensor<2> {
        let features_nct = self.backbone.features(clips, pass);
        self.classifier.forward(features_nct.mean_dim(2).squeeze_dim::<2>(2))
    }
}

/// A trimmed clip of this rank's share of the batch.
#[derive(Debug, Clone)]
pub struct TrimmedClip {
    /// `[3, L, H, W]`, normalised.
    pub pixels: Vec<f32>,
    /// Class, or the number of classes where there is no action.
    pub label: usize,
    /// What its drop path draws from: depends on its place in the global batch, not on the rank.
    pub key: Key,
    /// Which clip it is, and at which place.
    pub id: SampleIds,
}

/// What a batch of clips came to on this rank.
#[derive(Debug)]
pub struct Classified {
    /// Gradient of this rank's share of the mean loss.
    pub gradients: Flat,
    /// This rank's share of the mean loss.
    pub loss: f32,
    /// Clips whose best class was the right one.
    pub correct: f32,
}

/// Cross-entropy of this rank's clips over the size of the global batch, and its gradient. Clips have the shape
/// `[3, L, H, W]` given; a rank without clips contributes zeros.
///
/// # Errors
/// The device failed.
pub fn classify(
    learner: &Learner<Classifier>,
    clips: &[TrimmedClip],
    shape: [usize; 4],
    global_batch: usize,
    device: &Device,
) -> Result<Classified, OptimError> {
    if clips.is_empty() {
        let zeros = vec![0.0; learner.layout().len()];
        let gradients = Flat::from_host(learner.layout(), &zeros, device)?;
        return Ok(Classified { gradients, loss: 0.0, correct: 0.0 });
    }
    let model = learner.taped();
    let keys: Vec<Key> = clips.iter().map(|clip| clip.key).collect();
    let input = stack(clips.iter().map(|clip| clip.pixels.as_slice()), shape, device).autodiff();
    let logits_nk = model.forward(input, Pass::Train { keys: &keys });
    let [count, classes] = logits_nk.dims();
    let correct = count_correct(&tape::host(logits_nk.clone().inner()), clips, classes);
    let mut target = vec![0f32; count * classes];
    for (row, clip) in clips.iter().enumerate() {
        target[row * classes + clip.label] = -1.0 / global_batch as f32;
    }
    let target = Tensor::<2>::from_data(TensorData::new(target, [count, classes]), device).autodiff();
    let loss = (activation::log_softmax(logits_nk, 1) * target).sum();
    let value = tape::host(loss.clone().inner())[0];
    let mut gradients = loss.backward();
    let gradients = learner.layout().gather_gradients(&model, &mut gradients);
    Ok(Classified { gradients, loss: value, correct })
}

/// Trains the classifier to its last step, or until all ranks agree to stop or to leave; saves where that is due. Gives
/// nothing where the stage is done.
///
/// # Errors
/// The generation was aborted, too many steps in a row were not finite, a clip cannot be read, or a device failed.
pub fn train(
    run: &RunContext,
    state: &mut Pretraining,
    saver: &mut Saver<'_>,
) -> Result<Option<Ended>, TrainError> {
    let config = &run.config.pretrain;
    let mut reporter = Reporter::new(run, Stage::Pretrain, config.steps, state.learner.step.0);
    let mut rhythm = Rhythm::new(&run.config.checkpoint);
    let mut batches = batches(run, state.learner.step)?;
    while state.learner.step.0 < config.steps {
        let control = step(run, state, saver, &rhythm, &mut batches, &mut reporter)?;
        saver.poll()?;
        let wish = control.wish();
        let must = wish == Wish::Stop || state.learner.step.0 == config.steps;
        let reasons = Reasons { must, due: false, asked: control.checkpoint > 0.0 };
        if rhythm.begins(reasons, control.saving > 0.0) {
            run.session.enter(state.learner.step, StepPhase::Save);
            let facts = Facts { counters: state.counters, ..Facts::default() };
            saver.start(Snapshot::take(run, SavedStage::Pretrain, &state.learner, None, facts)?)?;
        }
        match wish {
            Wish::GoOn => {}
            Wish::Leave => {
                saver.finish()?;
                return Ok(Some(Ended::Left));
            }
            Wish::Stop => {
                saver.finish()?;
                return Ok(Some(Ended::Finished(Ending::Stopped, state.learner.step)));
            }
        }
    }
    Ok(None)
}

/// A batch of trimmed clips, read ahead.
type Batches = Prefetch<Result<Vec<TrimmedClip>, LoadError>>;

fn step(
    run: &RunContext,
    state: &mut Pretraining,
    saver: &Saver<'_>,
    rhythm: &Rhythm,
    batches: &mut Batches,
    reporter: &mut Reporter<'_>,
) -> Result<Control, TrainError> {
    let config = &run.config.pretrain;
    let now = state.learner.step;
    run.session.enter(now, StepPhase::Data);
    let started = Instant::now();
    let clips = batches.next_while(|| run.collective.check().is_ok())?;
    run.collective.check()?;
    let Some(clips) = clips else { return Err(TrainError::OutOfSamples { step: now }) };
    let clips = clips?;
    run.session.enter(now, StepPhase::Judge);
    let shape = [3, config.clip_frames, run.config.data.crop, run.config.data.crop];
    let classified = classify(&state.learner, &clips, shape, config.batch, &run.device)?;
    run.session.enter(now, StepPhase::Reduce);
    let control = Control {
        loss: classified.loss,
        samples: clips.len() as f32,
        sample_ids: clips.iter().map(|clip| clip.id).sum(),
        clips: clips.len() as f32,
        positives: classified.correct,
        ..saver.wishes(rhythm)
    };
    let layout = state.learner.layout();
    let bucket = run.config.bucket_values();
    let (gradients, control) =
        agree(&run.collective, layout, classified.gradients, control, bucket, &run.device)?;
    run.session.enter(now, StepPhase::Move);
    let moved = state.learner.advance(gradients, control.loss.is_finite())?;
    let taken = (SavedStage::Pretrain, state.learner.step);
    finite::note(&mut state.counters, moved.applied, run.config.train.max_non_finite, taken)?;
    reporter.step(&control, &moved, &state.counters, Seconds(started.elapsed().as_secs_f64()));
    Ok(control)
}

/// This worker's clips of the steps from `from` on, read ahead: an equal share of each batch, in the order of ranks.
fn batches(run: &RunContext, from: Step) -> Result<Batches, TrainError> {
    let config = &run.config.pretrain;
    let videos: Result<Vec<_>, TrainError> = run
        .dataset
        .subset(Subset::Training)
        .into_iter()
        .map(|video| Ok((video, run.length(video)?)))
        .collect();
    let planner = TrimmedPlanner::new(&run.config.data, config, &run.dataset, &videos?, run.root);
    let own = initial_assignment(config.batch, run.assignment.world, run.assignment.rank);
    let reader = Arc::clone(&run.reader);
    let read = move |step: Step, _: &Wanted| {
        let plans = own.iter().filter_map(|place| Some((*place, planner.clip(step, place.index())?)));
        plans
            .map(|(place, plan)| {
                let pixels = reader.trimmed(&plan)?;
                let id = SampleIds::of_clip(place, &plan);
                Ok(TrimmedClip { pixels, label: plan.label, key: plan.key, id })
            })
            .collect()
    };
    Ok(Prefetch::spawn(from..Step(config.steps), run.config.data.prefetch, 1, read)?)
}

/// Clips as one tensor `[N, 3, L, H, W]`.
pub fn stack<'a>(clips: impl Iterator<Item = &'a [f32]>, shape: [usize; 4], device: &Device) -> Tensor<5> {
    let mut values = Vec::new();
    let mut count = 0;
    for clip in clips {
        values.extend_from_slice(clip);
        count += 1;
    }
    let [channels, frames, height, width] = shape;
    Tensor::from_data(TensorData::new(values, [count, channels, frames, height, width]), device)
}

fn count_correct(logits: &[f32], clips: &[TrimmedClip], classes: usize) -> f32 {
    logits
        .chunks_exact(classes)
        .zip(clips)
        .filter(|(row, clip)| {
            let best = (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            best == Some(clip.label)
        })
        .count() as f32
}
