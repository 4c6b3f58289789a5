//! One training step, top to bottom in data-path order. It is a pure function: (state, samples, remembered rows) ->
//! (gradient, new rows, statistics). Only committing it changes anything.
//!
//! Takes: samples with the pixels of their clips and their remembered rows. Gives: [`crate::train::step::Pending`].
//! Next: [`crate::train::agree`].

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use longtake_shared::config::{Replay, RunConfig};
use longtake_shared::ids::LaneId;
use longtake_shared::random::Key;

use super::learner::Learner;
use super::pretrain::stack;
use super::tape::host;
use crate::collective::{CollectiveError, SharedCollective};
use crate::control::StepPhase;
use crate::data::plan::SamplePlan;
use crate::loss::{Criterion, SampleTargets};
use crate::model::detector::Detector;
use crate::model::norm::{MomentsReducer, PendingStatistics};
use crate::model::pass::Pass;
use crate::model::tcm::consistency::TooLong;
use crate::optim::Flat;

/// What a step is told besides its samples.
pub struct StepContext<'a> {
    /// The model, the layout of its parameters.
    pub learner: &'a Learner<Detector>,
    /// Settings of the run.
    pub config: &'a RunConfig,
    /// Anchors and losses.
    pub criterion: &'a Criterion,
    /// What each input's anchors are to say; nothing for an idle lane.
    pub targets: &'a [Option<SampleTargets>],
    /// Key of this step: seed / "train" / step.
    pub key: Key,
    /// Loss normaliser: sum over the samples of all ranks of max(positive anchors, 1).
    pub normaliser: f32,
    /// Height and width of the clips' pictures.
    pub picture: [usize; 2],
    /// Sums BatchNorm's moments over ranks.
    pub moments: Arc<dyn MomentsReducer>,
    /// Where tensors live.
    pub device: &'a Device,
    /// Asked between two chunks whether the generation still lives.
    pub goes_on: Option<&'a SharedCollective>,
    /// Told what comes next.
    pub enter: &'a dyn Fn(StepPhase),
}

impl StepContext<'_> {
    fn check(&self) -> Result<(), CollectiveError> {
        self.goes_on.map_or(Ok(()), SharedCollective::check)
    }
}

/// Why a step came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A window is longer than the model was built for.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The generation is over.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

/// A clip that passes through the backbone in this step.
#[derive(Debug, Clone)]
pub struct InputClip {
    /// Its place among the window's clips.
    pub clip: usize,
    /// `[3, L, H, W]`, normalised and augmented.
    pub pixels: Vec<f32>,
    /// Whether it is a sampled clip, which trains the backbone; otherwise memory lacks its rows.
    pub trains: bool,
}

/// One lane's sample.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What was drawn for it.
    pub plan: SamplePlan,
    /// Its clips that pass through the backbone.
    pub clips: Vec<InputClip>,
    /// Rows of the whole window as remembered, `[clips * L/2, C]`; those of `clips` are not looked at.
    pub remembered: Vec<f32>,
}

/// One lane of this worker's batch; a lane without a sample is idle but takes part in every collective.
#[derive(Debug, Clone)]
pub struct LaneInput {
    /// The lane.
    pub lane: LaneId,
    /// Its sample.
    pub sample: Option<Sample>,
}

/// Features of a clip that replace the remembered ones once the step is committed.
#[derive(Debug, Clone, PartialEq)]
pub struct FreshRows {
    /// Position in the worker's batch.
    pub input: usize,
    /// The clip.
    pub clip: usize,
    /// `[L/2, C]`.
    pub values: Vec<f32>,
}

/// What a step came to on this rank. Dropping it leaves no trace.
#[derive(Debug)]
pub struct Pending {
    /// Gradient of this rank's samples, divided by the normaliser of all ranks.
    pub gradients: Flat,
    /// Running statistics to install, in order.
    pub statistics: Vec<PendingStatistics>,
    /// Rows to write back.
    pub rows: Vec<FreshRows>,
    /// Loss of this rank's samples over the normaliser of all ranks.
    pub loss: f32,
    /// Its part from classification.
    pub class_loss: f32,
    /// Its part from regression.
    pub regression_loss: f32,
}

/// A clip of the worker's batch, by input and place in the window.
type ClipAt = (usize, usize);

/// Look, remember, judge, replay (DESIGN of the step: sections 2 to 5 of its list).
///
/// # Errors
/// The window is longer than the TCM's position table, or the generation is over.
pub fn step(cx: &StepContext<'_>, inputs: &[LaneInput]) -> Result<Pending, StepError> {
    let taped = cx.learner.taped();
    let replay = cx.config.memory.replay == Replay::On;
    let trained = clips_where(inputs, |clip| clip.trains);

    // LOOK
    (cx.enter)(StepPhase::Look);
    let plain = &cx.learner.module;
    let mut fresh = look(cx, plain, inputs, &clips_where(inputs, |clip| !clip.trains || replay), false)?;
    let mut rows = fresh_rows(&fresh);
    if !replay {
        let with_tape = look(cx, &taped, inputs, &trained, true)?;
        let detached = with_tape.iter().map(|(at, f)| (*at, f.clone().inner())).collect();
        rows.extend(fresh_rows(&detached));
        fresh = fresh.into_iter().map(|(at, f)| (at, f.autodiff())).chain(with_tape).collect();
    }

    // REMEMBER
    let features_bct = remember(cx, inputs, &fresh, !replay);

    // JUDGE
    (cx.enter)(StepPhase::Judge);
    let features_bct = if replay { features_bct.autodiff().require_grad() } else { features_bct };
    let keys: Vec<Key> = inputs.iter().map(|input| lane_key(cx.key, input.lane)).collect();
    let weights: Vec<f32> = inputs.iter().map(|input| f32::from(u8::from(input.sample.is_some()))).collect();
    let pass = Pass::Train { keys: &keys };
    let output = taped.detection.forward(features_bct.clone(), &weights, pass, &cx.moments)?;
    let parts = cx.criterion.forward(&output, cx.targets, cx.normaliser);
    let scalar = |x: &Tensor<1>| host(x.clone().inner())[0];
    let (loss, class_loss, regression_loss) =
        (scalar(&parts.total), scalar(&parts.class), scalar(&parts.regression));
    let total = parts.total;
    let mut tape = total.backward();
    let mut gradients = cx.learner.layout().gather_gradients(&taped, &mut tape);

    // REPLAY
    if replay && !trained.is_empty() {
        (cx.enter)(StepPhase::Replay);
        let upstream_bct = features_bct.grad_remove(&mut tape).expect("every loss depends on the features");
        gradients = replay_clips(cx, &taped, inputs, &trained, &upstream_bct, gradients)?;
    }

    Ok(Pending { gradients, statistics: output.statistics, rows, loss, class_loss, regression_loss })
}

/// Clips of the batch that satisfy a condition, in the order of the batch.
fn clips_where(inputs: &[LaneInput], condition: impl Fn(&InputClip) -> bool) -> Vec<ClipAt> {
    let mut found = Vec::new();
    for (input, lane) in inputs.iter().enumerate() {
        for (position, clip) in lane.sample.iter().flat_map(|sample| sample.clips.iter().enumerate()) {
            if condition(clip) {
                found.push((input, position));
            }
        }
    }
    found
}

fn lane_key(step: Key, lane: LaneId) -> Key {
    step.child("lane", u64::from(lane.0))
}

/// Pixels `[N, 3, L, H, W]` of some clips and the key of each, which does not depend on who else is in the chunk.
fn chunk_input(cx: &StepContext<'_>, inputs: &[LaneInput], chunk: &[ClipAt]) -> (Tensor<5>, Vec<Key>) {
    let clip = |&(input, position): &ClipAt| {
        let sample = inputs[input].sample.as_ref().expect("only samples have clips");
        &sample.clips[position]
    };
    let keys = chunk
        .iter()
        .map(|at| lane_key(cx.key, inputs[at.0].lane).child("clip", clip(at).clip as u64))
        .collect();
    let [height, width] = cx.picture;
    let shape = [3, cx.config.data.clip_frames, height, width];
    (stack(chunk.iter().map(|at| clip(at).pixels.as_slice()), shape, cx.device), keys)
}

/// Features `[C, L/2]` of some clips, chunk by chunk; with a tape where the model has one.
fn look(
    cx: &StepContext<'_>,
    model: &Detector,
    inputs: &[LaneInput],
    clips: &[ClipAt],
    taped: bool,
) -> Result<BTreeMap<ClipAt, Tensor<2>>, CollectiveError> {
    let mut features = BTreeMap::new();
    for chunk in clips.chunks(cx.config.memory.chunk_clips.max(1)) {
        cx.check()?;
        let (pixels, keys) = chunk_input(cx, inputs, chunk);
        let pixels = if taped { pixels.autodiff() } else { pixels };
        let chunk_ncf = model.backbone.features(pixels, Pass::Train { keys: &keys });
        for (row, &(input, position)) in chunk.iter().enumerate() {
            let clip = inputs[input].sample.as_ref().expect("only samples have clips").clips[position].clip;
            features.insert((input, clip), chunk_ncf.clone().narrow(0, row, 1).squeeze_dim::<2>(0));
        }
    }
    Ok(features)
}

/// Fresh features as rows `[L/2, C]` on the host.
fn fresh_rows(fresh: &BTreeMap<ClipAt, Tensor<2>>) -> Vec<FreshRows> {
    fresh
        .iter()
        .map(|(&(input, clip), features_cf)| FreshRows {
            input,
            clip,
            values: host(features_cf.clone().transpose()),
        })
        .collect()
}

/// Fresh and remembered features in temporal order, `[B, C, T]`; zeros for idle lanes. A shifted division is cropped back
/// to the window.
fn remember(
    cx: &StepContext<'_>,
    inputs: &[LaneInput],
    fresh: &BTreeMap<ClipAt, Tensor<2>>,
    taped: bool,
) -> Tensor<3> {
    let channels = cx.config.model.backbone.channels();
    let rows_of_clip = cx.config.data.clip_frames / 2;
    let rows = cx.config.data.window_frames / 2;
    let constant = |values: Vec<f32>, shape: [usize; 2]| {
        let tensor = Tensor::<2>::from_data(TensorData::new(values, shape), cx.device);
        if taped { tensor.autodiff() } else { tensor }
    };
    let batch = inputs.iter().enumerate().map(|(input, lane)| {
        let Some(sample) = &lane.sample else {
            return constant(vec![0.0; channels * rows], [channels, rows]).unsqueeze::<3>();
        };
        let parts = (0..sample.plan.clips).map(|clip| {
            fresh.get(&(input, clip)).cloned().unwrap_or_else(|| {
                let block = clip * rows_of_clip * channels..(clip + 1) * rows_of_clip * channels;
                constant(sample.remembered[block].to_vec(), [rows_of_clip, channels]).transpose()
            })
        });
        let crop = sample.plan.crop_row();
        Tensor::cat(parts.collect(), 1).slice([0..channels, crop..crop + rows]).unsqueeze::<3>()
    });
    Tensor::cat(batch.collect(), 0)
}

/// Passes each chunk of sampled clips through the backbone again, now with a tape, and adds the gradient of
/// `sum(features * upstream)`: the chain rule, with the tape of one chunk at a time.
fn replay_clips(
    cx: &StepContext<'_>,
    taped: &Detector,
    inputs: &[LaneInput],
    clips: &[ClipAt],
    upstream_bct: &Tensor<3>,
    mut gradients: Flat,
) -> Result<Flat, CollectiveError> {
    for chunk in clips.chunks(cx.config.memory.chunk_clips.max(1)) {
        cx.check()?;
        let (pixels, keys) = chunk_input(cx, inputs, chunk);
        let features_ncf = taped.backbone.features(pixels.autodiff(), Pass::Train { keys: &keys });
        let upstream = chunk.iter().map(|&(input, position)| {
            let sample = inputs[input].sample.as_ref().expect("only samples have clips");
            upstream_of_clip(
                upstream_bct,
                input,
                sample.clips[position].clip,
                &sample.plan,
                features_ncf.dims()[2],
            )
        });
        let upstream_ncf = Tensor::cat(upstream.collect(), 0).autodiff();
        let mut tape = (features_ncf * upstream_ncf).sum().backward();
        gradients = gradients + cx.learner.layout().gather_gradients(taped, &mut tape);
    }
    Ok(gradients)
}

/// The part of dL/df, `[B, C, T]`, that belongs to a clip, `[1, C, L/2]`; zeros where a shifted clip reaches past the window.
fn upstream_of_clip(
    upstream_bct: &Tensor<3>,
    input: usize,
    clip: usize,
    plan: &SamplePlan,
    rows_of_clip: usize,
) -> Tensor<3> {
    let [_, channels, rows] = upstream_bct.dims();
    let crop = plan.crop_row();
    let first = (clip * rows_of_clip).max(crop);
    let last = ((clip + 1) * rows_of_clip).min(crop + rows);
    let device = upstream_bct.device();
    let zeros = |count: usize| Tensor::<3>::zeros([1, channels, count], &device);
    let mut parts = Vec::new();
    if first > clip * rows_of_clip {
        parts.push(zeros(first - clip * rows_of_clip));
    }
    if first < last {
        parts.push(upstream_bct.clone().slice([input..input + 1, 0..channels, first - crop..last - crop]));
    }
    if last < (clip + 1) * rows_of_clip {
        parts.push(zeros((clip + 1) * rows_of_clip - last));
    }
    Tensor::cat(parts, 2)
}
