//! One training step, top to bottom in data-path order. It is a pure function: (state, samples, remembered rows) ->
//! (gradient, new rows, statistics). Only committing it changes anything.
//!
//! Takes: samples with the pixels of their clips and their remembered rows. Gives: `Pending`.
//! Next: `super::gradient_sync`.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use longtake_shared::config::{FeatureGeometry, Replay, RunConfig};
use longtake_shared::ids::LaneId;
use longtake_shared::random::Key;

use crate::collective::{CollectiveError, SharedCollective};
use crate::control::StepPhase;
use crate::data::plan::SamplePlan;
use crate::model::backbone::Backbone;
use crate::model::backbone::encoder::{ClipEncoder, EncoderClip, Encoding};
use crate::model::detector::Detector;
use crate::model::heads::{HeadError, HeadPass, Judged, WindowBatch};
use crate::model::norm::{MomentsReducer, PendingStatistics};
use crate::model::pass::Pass;
use crate::model::truth::Truth;
use crate::optim::Flat;
use crate::tensors::host;
use crate::train::step::learner::Learner;

/// What a step is told besides its samples.
pub struct StepContext<'a> {
    /// The model, the layout of its parameters.
    pub learner: &'a Learner<Detector>,
    /// Settings of the run.
    pub config: &'a RunConfig,
    /// What is annotated in each input's window; nothing for an idle lane.
    pub truth: &'a [Option<Truth>],
    /// Key of this step: seed / "train" / step.
    pub key: Key,
    /// Loss normaliser of all ranks.
    pub normaliser: f32,
    /// Sums over the whole batch, which lies on all ranks.
    pub sums: &'a Arc<dyn MomentsReducer>,
    /// How clips pass through the backbone.
    pub encoder: ClipEncoder<'a>,
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
    /// The localizer cannot take the windows.
    #[error(transparent)]
    Head(#[from] HeadError),
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
    /// The parts of the loss, in the order of the localizer's terms.
    pub terms: Vec<f32>,
    /// Predictions that are matched with an action.
    pub positives: usize,
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
    let plain = &cx.learner.module.backbone;
    let untaped = clips_where(inputs, |clip| !clip.trains || replay);
    let mut fresh = look(cx, plain, inputs, &untaped, Encoding::Train)?;
    let mut rows = fresh_rows(&fresh);
    if !replay {
        let with_tape = look(cx, &taped.backbone, inputs, &trained, Encoding::TrainWithTape)?;
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
    let lengths: Vec<usize> = inputs.iter().map(|input| real_positions(cx, input)).collect();
    let batch = WindowBatch { features_bct: features_bct.clone(), lengths: &lengths, weights: &weights };
    let pass = HeadPass { pass: Pass::Train { keys: &keys }, sums: cx.sums };
    let judged = taped.detection.judge(&batch, cx.truth, cx.normaliser, pass)?;
    drop(batch);
    let Judged { total, terms, positives, statistics } = judged;
    let loss = host(total.clone().inner())[0];
    let mut tape = total.backward();
    let mut gradients = cx.learner.layout().gather_gradients(&taped, &mut tape);

    // REPLAY
    if replay && !trained.is_empty() {
        (cx.enter)(StepPhase::Replay);
        let upstream_bct = features_bct.grad_remove(&mut tape).expect("every loss depends on the features");
        gradients = replay_clips(cx, &taped, inputs, &trained, &upstream_bct, gradients)?;
    }

    Ok(Pending { gradients, statistics, rows, loss, terms, positives })
}

/// Positions of a window that show the video; none of an idle lane.
fn real_positions(cx: &StepContext<'_>, input: &LaneInput) -> usize {
    let geometry = cx.config.geometry();
    input.sample.as_ref().map_or(0, |sample| {
        let rest = (sample.plan.frames_total as i64 - sample.plan.start.0).max(0) as usize;
        geometry.rows(rest).min(geometry.positions)
    })
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

/// The sample and the clip at a place of the batch.
fn at<'i>(inputs: &'i [LaneInput], &(input, position): &ClipAt) -> (&'i Sample, &'i InputClip) {
    let sample = inputs[input].sample.as_ref().expect("only samples have clips");
    (sample, &sample.clips[position])
}

/// Features of one chunk of clips. The key of each does not depend on which clips share the chunk.
///
/// # Shapes
/// -> `[N, C, L / stride]`
fn encode(
    cx: &StepContext<'_>,
    backbone: &Backbone,
    inputs: &[LaneInput],
    chunk: &[ClipAt],
    encoding: Encoding,
) -> Result<Tensor<3>, CollectiveError> {
    cx.check()?;
    let clips: Vec<EncoderClip<'_>> = chunk
        .iter()
        .map(|place| {
            let clip = at(inputs, place).1;
            let key = lane_key(cx.key, inputs[place.0].lane).child("clip", clip.clip as u64);
            EncoderClip { pixels: &clip.pixels, key }
        })
        .collect();
    Ok(cx.encoder.encode(backbone, &clips, encoding))
}

/// Features `[C, L / stride]` of some clips, chunk by chunk.
fn look(
    cx: &StepContext<'_>,
    backbone: &Backbone,
    inputs: &[LaneInput],
    clips: &[ClipAt],
    encoding: Encoding,
) -> Result<BTreeMap<ClipAt, Tensor<2>>, CollectiveError> {
    let mut features = BTreeMap::new();
    for chunk in clips.chunks(cx.encoder.chunk()) {
        let chunk_ncf = encode(cx, backbone, inputs, chunk, encoding)?;
        for (row, place) in chunk.iter().enumerate() {
            let clip = at(inputs, place).1.clip;
            features.insert((place.0, clip), chunk_ncf.clone().narrow(0, row, 1).squeeze_dim::<2>(0));
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
    let FeatureGeometry { channels, positions: rows, .. } = cx.config.geometry();
    let rows_of_clip = cx.config.geometry().rows(cx.config.data.clip_frames);
    let constant = |values: Vec<f32>, shape: [usize; 2]| {
        let tensor = Tensor::<2>::from_data(TensorData::new(values, shape), cx.encoder.device);
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
    for chunk in clips.chunks(cx.encoder.chunk()) {
        let features_ncf = encode(cx, &taped.backbone, inputs, chunk, Encoding::TrainWithTape)?;
        let rows_of_clip = features_ncf.dims()[2];
        let upstream = chunk.iter().map(|place| {
            let (sample, clip) = at(inputs, place);
            upstream_of_clip(upstream_bct, place.0, clip.clip, &sample.plan, rows_of_clip)
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
