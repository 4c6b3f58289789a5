//! The step is what it claims to be: replay is exact, the world size does not matter, an aborted step leaves no trace.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use longtake_shared::config::{BackboneInit, OptimizerKind, Replay, RunConfig, Variant};
use longtake_shared::ids::{Generation, LaneId, Rank, RunId, Step, VideoIndex};
use longtake_shared::lanes::initial_assignment;
use longtake_shared::random::Key;
use longtake_shared::units::FrameIndex;
use rand::Rng as _;

use super::TrainError;
use crate::collective::{
    Aborter, Fault, FaultKind, Faulty, Local, Membership, RingListener, SharedCollective,
};
use crate::data::augment::AugmentDraw;
use crate::data::plan::SamplePlan;
use crate::model::backbone::Backbone;
use crate::model::detector::Detector;
use crate::model::heads::linear::LinearLocalizer;
use crate::model::heads::{HeadPass, Localizer, WindowBatch};
use crate::model::layers::Init;
use crate::model::norm::{LocalMoments, MomentsReducer};
use crate::model::pass::Pass;
use crate::model::truth::{LabelledSegment, Truth};
use crate::tensors::{NamedTensor, TensorData};
use crate::train::step::gradient_sync::Control;
use crate::train::step::learner::{Learner, StageLength};
use crate::train::step::step_runner::{Committed, StepRunner, truth_of};
use crate::train::step::{InputClip, LaneInput, Sample};

const CLASSES: usize = 3;
const LANES: usize = 3;

/// A detector of a few thousand parameters on windows of 64 frames.
pub(super) fn config() -> RunConfig {
    let mut config = RunConfig::default();
    config.data.crop = 16;
    config.data.frame_height = 16;
    config.data.frame_width = 16;
    config.data.window_frames = 64;
    config.data.clip_frames = 16;
    let backbone = &mut config.model.backbone;
    backbone.variant = Variant::Custom;
    backbone.embed_dim = 8;
    backbone.depths = vec![1, 1];
    backbone.num_heads = vec![1, 2];
    backbone.drop_path = 0.2;
    backbone.frozen_stages = -1;
    backbone.linear_init = BackboneInit::FanIn;
    let neck = &mut config.model.neck;
    neck.channels = 16;
    neck.tcm_layers = 1;
    neck.tcm_heads = 2;
    neck.tdm_heads = 2;
    neck.tdm_kernels = vec![3];
    neck.fpn_channels = 8;
    config.model.head.convs = 1;
    config.model.head.scales_per_octave = 2;
    config.memory.sampling_rate = 0.5;
    config.optim.kind = OptimizerKind::Sgd;
    config.optim.learning_rate = 0.02;
    config.optim.clip_norm = 1.0;
    config.optim.schedule.warmup_steps = 0;
    config.train.lanes = LANES;
    config
}

/// The sample of a lane in a step: different numbers of actions a lane; lane 2 is idle in odd steps.
fn input(config: &RunConfig, step: Step, lane: LaneId) -> LaneInput {
    if lane.0 == 2 && step.0 % 2 == 1 {
        return LaneInput { lane, sample: None };
    }
    let key = Key::root(99).child("step", step.0).child("lane", u64::from(lane.0));
    let draw = |key: Key, count: usize| -> Vec<f32> {
        let mut rng = key.rng();
        (0..count).map(|_| f32::from(rng.next_u32() as u8) / 128.0 - 1.0).collect()
    };
    let actions = (0..=lane.0)
        .map(|action| LabelledSegment {
            segment: [2.0 + 20.0 * action as f32, 18.0 + 21.0 * action as f32],
            label: action as usize,
        })
        .collect();
    let clips = config.data.clips();
    let sampled = vec![lane.0 as usize, 3];
    let pixels = 3 * config.data.clip_frames * config.data.crop * config.data.crop;
    let plan = SamplePlan {
        step,
        lane,
        key,
        video: VideoIndex(lane.0),
        start: FrameIndex(0),
        shift: 0,
        clips,
        clip_frames: config.data.clip_frames,
        sampled: sampled.clone(),
        augment: AugmentDraw::centred(&config.data),
        truth: Truth { video: VideoIndex(lane.0), fps: config.data.fps, actions },
        frames_total: 64,
        frames_per_row: config.geometry().stride,
    };
    let clips = sampled
        .into_iter()
        .map(|clip| InputClip { clip, pixels: draw(key.child("clip", clip as u64), pixels), trains: true })
        .collect();
    let remembered = draw(key.child("rows", 0), 32 * config.model.backbone.channels());
    LaneInput { lane, sample: Some(Sample { plan, clips, remembered }) }
}

fn learner(config: &RunConfig, device: &Device) -> Learner<Detector> {
    let detector = Detector::new(config, CLASSES, &Init::new(device, Key::root(5)));
    Learner::new(detector, &config.optim, StageLength { steps: 10, steps_per_epoch: 5 }, &[]).unwrap()
}

fn alone() -> SharedCollective {
    SharedCollective::new(Box::new(Local::new(Generation(1), Aborter::new().unwrap())))
}

fn run_step(settings: &StepRunner, learner: &mut Learner<Detector>, inputs: &[LaneInput]) -> Committed {
    try_step(settings, learner, inputs).unwrap()
}

fn try_step(
    settings: &StepRunner,
    learner: &mut Learner<Detector>,
    inputs: &[LaneInput],
) -> Result<Committed, TrainError> {
    let computed = settings.compute(learner, inputs, Control::default(), &|_| {})?;
    settings.commit(learner, computed, &|_| {})
}

fn values(tensor: &NamedTensor) -> &[f32] {
    let TensorData::F32(values) = &tensor.data else { panic!("`{}` is not f32", tensor.name) };
    values
}

/// Largest difference of two lists of tensors, over the largest value of each tensor.
pub(super) fn difference(a: &[NamedTensor], b: &[NamedTensor]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            assert_eq!(a.name, b.name);
            let (a, b) = (values(a), values(b));
            let scale = b.iter().fold(1e-3f32, |scale, value| scale.max(value.abs()));
            a.iter().zip(b).map(|(a, b)| (a - b).abs() / scale).fold(0.0, f32::max)
        })
        .fold(0.0, f32::max)
}

/// The same sample under `data.clip_shift`: one clip more, the first begins `shift` frames before the window, and the
/// clips at both ends, which reach past it, are the sampled ones.
fn shifted(mut input: LaneInput, shift: usize) -> LaneInput {
    let sample = input.sample.as_mut().unwrap();
    let ends = [0, sample.plan.clips];
    sample.plan.shift = shift;
    sample.plan.clips += 1;
    sample.plan.sampled = ends.to_vec();
    for (clip, place) in sample.clips.iter_mut().zip(ends) {
        clip.clip = place;
    }
    let rows_of_a_clip = sample.remembered.len() / ends[1];
    sample.remembered.extend_from_within(..rows_of_a_clip);
    input
}

/// Gradient, loss and count of fresh rows of a step whose samples are all shifted by so many frames, or not at all.
fn gradient_of_step(replay: Replay, chunk_clips: usize, shift: Option<usize>) -> (Vec<f32>, f32, usize) {
    let mut config = config();
    config.memory.replay = replay;
    config.memory.chunk_clips = chunk_clips;
    let config = Arc::new(config);
    let device = Device::flex();
    let learner = learner(&config, &device);
    let settings = StepRunner::new(Arc::clone(&config), Key::root(1), device, alone(), 1);
    let inputs: Vec<LaneInput> = (0..LANES)
        .map(|lane| {
            let input = input(&config, Step(0), LaneId(lane as u32));
            if let Some(shift) = shift { shifted(input, shift) } else { input }
        })
        .collect();
    let pending = settings.pending(&learner, &inputs, &truth_of(&inputs), 7.0, &|_| {}).unwrap();
    (pending.gradients.to_host().unwrap(), pending.loss, pending.rows.len())
}

fn assert_replay_is_exact(chunks: &[usize], shift: Option<usize>) {
    let (one_pass, loss, rows) = gradient_of_step(Replay::Off, 6, shift);
    let scale = one_pass.iter().fold(0f32, |scale, value| scale.max(value.abs()));
    assert!(scale > 1e-4, "the gradient is not zero");
    for &chunk_clips in chunks {
        let (replayed, replayed_loss, replayed_rows) = gradient_of_step(Replay::On, chunk_clips, shift);
        let worst = one_pass.iter().zip(&replayed).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 2e-5 * scale, "{worst} of {scale} with chunks of {chunk_clips} and shift {shift:?}");
        assert!((loss - replayed_loss).abs() <= 1e-5 * loss.abs());
        assert_eq!(rows, replayed_rows);
    }
}

#[test]
fn replay_gives_the_gradient_of_the_one_pass_step() {
    assert_replay_is_exact(&[1, 2, 4], None);
}

#[test]
fn replay_gives_the_gradient_of_shifted_clips() {
    // A shift of less than a row leaves the last clip wholly outside the window.
    for shift in [0, 1, 2, 7, 15] {
        assert_replay_is_exact(&[1, 4], Some(shift));
    }
}

/// Lane, clip, and the clip's fresh features.
type Row = (u32, usize, Vec<f32>);

/// What some steps came to, as rank 0 has it.
#[derive(Debug, PartialEq)]
struct Trained {
    tensors: Vec<NamedTensor>,
    /// Loss and norm of the gradient of each step.
    steps: Vec<(f32, f64)>,
    /// Fresh rows of all ranks.
    rows: Vec<Row>,
    /// Which samples each step took.
    samples: Vec<f64>,
}

/// Trains some steps in a world of this size.
fn train_in_world(config: RunConfig, world: usize, steps: u64) -> Trained {
    let config = Arc::new(config);
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let (listeners, peers): (Vec<_>, Vec<_>) =
        (0..world).map(|_| RingListener::bind(loopback).unwrap()).unzip();
    let ranks: Vec<_> = listeners
        .into_iter()
        .enumerate()
        .map(|(rank, listener)| {
            let (config, peers) = (Arc::clone(&config), peers.clone());
            std::thread::spawn(move || {
                let membership = Membership {
                    run: RunId("test".into()),
                    generation: Generation(1),
                    rank: Rank(rank as u32),
                };
                let deadline = Instant::now() + Duration::from_mins(1);
                let ring = listener.connect(&membership, &peers, deadline, Aborter::new().unwrap()).unwrap();
                let device = Device::flex();
                let collective = SharedCollective::new(Box::new(ring));
                let settings =
                    StepRunner::new(Arc::clone(&config), Key::root(1), device.clone(), collective, world);
                let mut learner = learner(&config, &device);
                let lanes = initial_assignment(LANES, world, Rank(rank as u32));
                let (mut taken, mut rows, mut samples) = (Vec::new(), Vec::new(), Vec::new());
                for step in 0..steps {
                    let inputs: Vec<_> = lanes.iter().map(|&lane| input(&config, Step(step), lane)).collect();
                    let mut computed =
                        settings.compute(&learner, &inputs, Control::default(), &|_| {}).unwrap();
                    let fresh = std::mem::take(&mut computed.rows);
                    let committed = settings.commit(&mut learner, computed, &|_| {}).unwrap();
                    assert!(committed.moved.applied);
                    taken.push((committed.control.loss, committed.moved.gradient_norm));
                    samples.push(committed.control.sample_fingerprint.number());
                    rows.extend(
                        fresh.into_iter().map(|fresh| (lanes[fresh.input].0, fresh.clip, fresh.values)),
                    );
                }
                Trained { tensors: learner.tensors(), steps: taken, rows, samples }
            })
        })
        .collect();
    let mut results: Vec<_> = ranks.into_iter().map(|rank| rank.join().unwrap()).collect();
    let mut first = results.remove(0);
    for other in results {
        assert!(first.tensors == other.tensors, "ranks of one world hold the same bits");
        first.rows.extend(other.rows);
    }
    first.rows.sort_by_key(|row| (row.0, row.1));
    first
}

#[test]
fn worlds_of_one_two_and_three_agree_within_rounding() {
    // Clipping would hide a gradient that is the mean over ranks in place of the sum.
    let unclipped = || {
        let mut config = config();
        config.optim.clip_norm = 0.0;
        config
    };
    let one = train_in_world(unclipped(), 1, 5);
    for world in [2, 3] {
        let other = train_in_world(unclipped(), world, 5);
        // SGD, since AdamW divides by the root of second moments that are rounding noise where a gradient is zero analytically.
        let worst = difference(&other.tensors, &one.tensors);
        assert!(worst < 2e-3, "parameters and statistics differ by {worst} in a world of {world}");
        assert_eq!(other.samples, one.samples, "the same samples in a world of {world}");
        for ((loss, norm), (loss_of_one, norm_of_one)) in other.steps.iter().zip(&one.steps) {
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-4 * b.abs();
            assert!(
                near((*loss).into(), (*loss_of_one).into()) && near(*norm, *norm_of_one),
                "loss {loss} and {loss_of_one}, gradient {norm} and {norm_of_one} in a world of {world}"
            );
        }
        assert_eq!(other.rows.len(), one.rows.len());
        for ((lane, clip, a), (lane_of_one, clip_of_one, b)) in other.rows.iter().zip(&one.rows) {
            assert_eq!((lane, clip), (lane_of_one, clip_of_one));
            let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 5e-3, "rows differ by {worst}");
        }
    }
}

#[test]
fn the_same_world_gives_the_same_bits_again() {
    assert!(train_in_world(config(), 2, 3) == train_in_world(config(), 2, 3));
}

#[test]
fn an_aborted_step_changes_nothing_and_can_be_done_again() {
    let config = Arc::new(config());
    let device = Device::flex();
    let inputs: Vec<LaneInput> =
        (0..LANES).map(|lane| input(&config, Step(0), LaneId(lane as u32))).collect();
    let mut untouched = learner(&config, &device);
    let healthy = StepRunner::new(Arc::clone(&config), Key::root(1), device.clone(), alone(), 1);
    let expected = run_step(&healthy, &mut untouched, &inputs);
    // A world of one calls no collective for its gradient: the calls are the normaliser and the moments of BatchNorm.
    for call in [0, 1, 3] {
        let mut learner = learner(&config, &device);
        let before = learner.tensors();
        let local = Local::new(Generation(1), Aborter::new().unwrap());
        let fault = Fault { rank: Rank(0), call, kind: FaultKind::Fail };
        let broken = SharedCollective::new(Box::new(Faulty::new(local, vec![fault])));
        let settings = StepRunner::new(Arc::clone(&config), Key::root(1), device.clone(), broken, 1);
        try_step(&settings, &mut learner, &inputs).unwrap_err();
        assert!(learner.tensors() == before);
        assert_eq!(learner.step, Step(0));
        let again = run_step(&healthy, &mut learner, &inputs);
        assert_eq!(again.control, expected.control);
        assert!(learner.tensors() == untouched.tensors());
    }
}

#[test]
fn a_step_that_is_not_finite_moves_nothing_but_counts() {
    let config = Arc::new(config());
    let device = Device::flex();
    let mut inputs = vec![input(&config, Step(0), LaneId(0))];
    inputs[0].sample.as_mut().unwrap().clips[0].pixels[7] = f32::NAN;
    let mut learner = learner(&config, &device);
    let before = learner.tensors();
    let settings = StepRunner::new(Arc::clone(&config), Key::root(1), device, alone(), 1);
    let committed = run_step(&settings, &mut learner, &inputs);
    assert!(!committed.moved.applied);
    assert!(learner.tensors() == before);
    assert_eq!(learner.step, Step(1));
}

#[test]
fn remembered_rows_carry_no_gradient_but_change_the_loss() {
    let config = Arc::new(config());
    let device = Device::flex();
    let settings = StepRunner::new(Arc::clone(&config), Key::root(1), device.clone(), alone(), 1);
    let loss = |scale: f32| {
        let mut input = input(&config, Step(0), LaneId(1));
        input.sample.as_mut().unwrap().remembered.iter_mut().for_each(|value| *value *= scale);
        let inputs = [input];
        let truth = truth_of(&inputs);
        settings.pending(&learner(&config, &device), &inputs, &truth, 3.0, &|_| {}).unwrap().loss
    };
    assert!((loss(1.0) - loss(0.0)).abs() > 1e-4);
}

#[test]
fn a_detector_of_another_family_trains_under_the_same_step() {
    let config = Arc::new(config());
    let device = Device::flex();
    let geometry = config.geometry();
    let init = Init::new(&device, Key::root(5));
    let linear = LinearLocalizer::new(geometry.channels, CLASSES, geometry.stride, &init);
    let detection = Localizer::Linear(linear);
    assert_eq!(detection.terms(), ["position_loss"]);
    let backbone = Backbone::new(&config.model.backbone, &init.field("backbone"));
    let length = StageLength { steps: 10, steps_per_epoch: 5 };
    let mut learner = Learner::new(Detector { backbone, detection }, &config.optim, length, &[]).unwrap();
    let before = learner.tensors();
    assert!(before.iter().any(|tensor| tensor.name == "classifier.weight"), "no level of the variant's name");
    let settings = StepRunner::new(Arc::clone(&config), Key::root(1), device.clone(), alone(), 1);
    let inputs: Vec<LaneInput> =
        (0..LANES).map(|lane| input(&config, Step(0), LaneId(lane as u32))).collect();
    let losses: Vec<f32> = (0..10)
        .map(|_| {
            let control = run_step(&settings, &mut learner, &inputs).control;
            assert_eq!(control.terms.0[0], control.loss);
            control.loss
        })
        .collect();
    assert!(losses[9] < losses[0], "{losses:?}");
    assert!(difference(&learner.tensors(), &before) > 0.0);

    let features_bct = burn::tensor::Tensor::zeros([2, geometry.channels, geometry.positions], &device);
    let batch = WindowBatch { features_bct, lengths: &[32, 8], weights: &[1.0, 1.0] };
    let sums: Arc<dyn MomentsReducer> = Arc::new(LocalMoments);
    let cx = HeadPass { pass: Pass::Evaluate, sums: &sums };
    let found = learner.module.detection.detect(&batch, 1000, cx).unwrap();
    assert_eq!(found.iter().map(|found| found.segments.len()).collect::<Vec<_>>(), [32, 32]);
}
