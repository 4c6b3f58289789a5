//! The first stage: the backbone as a classifier of trimmed clips, in place of Kinetics weights where none can be had.
//!
//! Takes: trimmed clips `[N, 3, L, H, W]` with a label each. Gives: the gradient of their mean cross-entropy over the
//! global batch. Next: [`crate::train::step::gradient_sync`].

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData, activation};
use longtake_shared::dataset::Subset;
use longtake_shared::ids::{Step, VideoIndex};
use longtake_shared::lanes::initial_assignment;
use longtake_shared::random::Key;
use longtake_shared::units::Seconds;

use crate::control::{Ending, SavedStage, Stage, StepPhase};
use crate::data::loader::LoadError;
use crate::data::prefetch::{Prefetch, Wanted};
use crate::data::trimmed::TrimmedPlanner;
use crate::model::classifier::Classifier;
use crate::model::pass::Pass;
use crate::optim::{Flat, OptimError};
use crate::tensors::{self, stack};
use crate::train::TrainError;
use crate::train::checkpointing::save::{Facts, Saver, Snapshot};
use crate::train::checkpointing::schedule::{Reasons, Rhythm};
use crate::train::run::context::RunContext;
use crate::train::run::report::Reporter;
use crate::train::stages::generation::Ended;
use crate::train::state::worker_state::Pretraining;
use crate::train::step::gradient_sync::{Control, Wish, agree};
use crate::train::step::learner::Learner;
use crate::train::step::non_finite;
use crate::train::step::sample_fingerprint::SampleFingerprint;

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
    pub id: SampleFingerprint,
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
    let correct = count_correct(&tensors::host(logits_nk.clone().inner()), clips, classes);
    let mut target = vec![0f32; count * classes];
    for (row, clip) in clips.iter().enumerate() {
        target[row * classes + clip.label] = -1.0 / global_batch as f32;
    }
    let target = Tensor::<2>::from_data(TensorData::new(target, [count, classes]), device).autodiff();
    let loss = (activation::log_softmax(logits_nk, 1) * target).sum();
    let value = tensors::host(loss.clone().inner())[0];
    let mut gradients = loss.backward();
    let gradients = learner.layout().gather_gradients(&model, &mut gradients);
    Ok(Classified { gradients, loss: value, correct })
}

/// Trains the classifier to its last step, or until all ranks agree to stop or to leave; saves where that is due. Gives
/// nothing where the stage is done.
///
/// # Errors
/// The generation was aborted, too many steps in a row were not finite, more videos are damaged than the settings tolerate, or a
/// device failed.
pub fn train(
    run: &RunContext,
    state: &mut Pretraining,
    saver: &mut Saver<'_>,
) -> Result<Option<Ended>, TrainError> {
    let config = &run.place.config.pretrain;
    let mut reporter = Reporter::new(run, Stage::Pretrain, config.steps, state.learner.step.0);
    let mut rhythm = Rhythm::new(&run.place.config.checkpoint);
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

/// This rank's share of a batch.
struct Batch {
    clips: Vec<TrimmedClip>,
    /// Clips that cannot be read, each by its video.
    unreadable: Vec<(VideoIndex, LoadError)>,
}

/// Batches of trimmed clips, read ahead.
type Batches = Prefetch<Batch>;

fn step(
    run: &RunContext,
    state: &mut Pretraining,
    saver: &Saver<'_>,
    rhythm: &Rhythm,
    batches: &mut Batches,
    reporter: &mut Reporter<'_>,
) -> Result<Control, TrainError> {
    let config = &run.place.config.pretrain;
    let now = state.learner.step;
    run.session.enter(now, StepPhase::Data);
    let started = Instant::now();
    let batch = batches.next_while(|| run.collective.check().is_ok())?;
    run.collective.check()?;
    let Some(Batch { clips, unreadable }) = batch else { return Err(TrainError::OutOfSamples { step: now }) };
    let skipped = unreadable.len() as f32;
    for (video, error) in unreadable {
        run.note_unreadable(video, error)?;
    }
    run.session.enter(now, StepPhase::Judge);
    let shape = [3, config.clip_frames, run.place.config.data.crop, run.place.config.data.crop];
    let classified = classify(&state.learner, &clips, shape, config.batch, &run.place.device)?;
    run.session.enter(now, StepPhase::Reduce);
    let control = Control {
        loss: classified.loss,
        samples: clips.len() as f32,
        sample_fingerprint: clips.iter().map(|clip| clip.id).sum(),
        clips: clips.len() as f32,
        positives: classified.correct,
        skipped,
        damaged_videos: run.place.damage.unshared() as f32,
        ..saver.wishes(rhythm)
    };
    let layout = state.learner.layout();
    let bucket = run.place.config.bucket_values();
    let (gradients, control) =
        agree(&run.collective, layout, classified.gradients, control, bucket, &run.place.device)?;
    run.session.enter(now, StepPhase::Move);
    let moved = state.learner.advance(gradients, control.loss.is_finite())?;
    state.counters.skipped_samples += control.skipped as u64;
    let taken = (SavedStage::Pretrain, state.learner.step);
    non_finite::note(&mut state.counters, moved.applied, run.place.config.train.max_non_finite, taken)?;
    reporter.step(&control, &[], &moved, &state.counters, Seconds(started.elapsed().as_secs_f64()));
    run.share_damage(control.damaged_videos)?;
    Ok(control)
}

/// This worker's clips of the steps from `from` on, read ahead: an equal share of each batch, in the order of ranks.
fn batches(run: &RunContext, from: Step) -> Result<Batches, TrainError> {
    let config = &run.place.config.pretrain;
    let videos: Result<Vec<_>, TrainError> = run
        .place
        .dataset
        .subset(Subset::Training)
        .into_iter()
        .map(|video| Ok((video, run.length(video)?)))
        .collect();
    let planner =
        TrimmedPlanner::new(&run.place.config.data, config, &run.place.dataset, &videos?, run.place.root);
    let own = initial_assignment(config.batch, run.assignment.world, run.assignment.rank);
    let reader = Arc::clone(&run.place.reader);
    let read = move |step: Step, _: &Wanted| {
        let mut batch = Batch { clips: Vec::with_capacity(own.len()), unreadable: Vec::new() };
        for &place in &own {
            let Some(plan) = planner.clip(step, place.index()) else { continue };
            match reader.trimmed(&plan) {
                Ok(pixels) => {
                    let id = SampleFingerprint::of_clip(place, &plan);
                    batch.clips.push(TrimmedClip { pixels, label: plan.label, key: plan.key, id });
                }
                Err(error) => batch.unreadable.push((plan.video, error)),
            }
        }
        batch
    };
    Ok(Prefetch::spawn(from..Step(config.steps), run.place.config.data.prefetch, 1, read)?)
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
