//! Replay makes the backbone's peak memory that of one chunk of clips, whatever the sampling rate is.
//!
//! A binary of its own, with a single test: its allocator counts the bytes that the whole process holds.

mod counting;

use std::sync::Arc;

use burn::tensor::Device;
use longtake_shared::config::{BackboneInit, Replay, RunConfig, Variant};
use longtake_shared::ids::{LaneId, Step, VideoIndex};
use longtake_shared::random::Key;
use longtake_shared::units::FrameIndex;
use longtake_worker::data::augment::AugmentDraw;
use longtake_worker::data::plan::SamplePlan;
use longtake_worker::model::backbone::encoder::ClipEncoder;
use longtake_worker::model::detector::Detector;
use longtake_worker::model::layers::Init;
use longtake_worker::model::norm::{LocalMoments, MomentsReducer};
use longtake_worker::model::truth::{LabelledSegment, Truth};
use longtake_worker::train::step::learner::{Learner, StageLength};
use longtake_worker::train::step::{InputClip, LaneInput, Sample, StepContext, step};
use rayon::ThreadPoolBuilder;

const CLIPS: usize = 10;
const CLASSES: usize = 3;

/// A window of ten clips, and a detector whose backbone outweighs everything else in memory.
fn config(replay: Replay) -> RunConfig {
    let mut config = RunConfig::default();
    config.data.crop = 32;
    config.data.clip_frames = 16;
    config.data.window_frames = CLIPS * config.data.clip_frames;
    let backbone = &mut config.model.backbone;
    backbone.variant = Variant::Custom;
    backbone.embed_dim = 16;
    backbone.depths = vec![1, 1];
    backbone.num_heads = vec![1, 2];
    backbone.drop_path = 0.0;
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
    config.memory.replay = replay;
    config.memory.chunk_clips = 1;
    config
}

fn sample(config: &RunConfig, sampled: usize) -> Sample {
    let sampled: Vec<usize> = (0..sampled).collect();
    let pixels = 3 * config.data.clip_frames * config.data.crop * config.data.crop;
    let clips = sampled
        .iter()
        .map(|&clip| InputClip {
            clip,
            pixels: (0..pixels).map(|index| ((index * 7 + clip) % 251) as f32 / 125.0 - 1.0).collect(),
            trains: true,
        })
        .collect();
    let plan = SamplePlan {
        step: Step(0),
        lane: LaneId(0),
        key: Key::root(0),
        video: VideoIndex(0),
        start: FrameIndex(0),
        shift: 0,
        clips: CLIPS,
        clip_frames: config.data.clip_frames,
        sampled,
        augment: AugmentDraw::centred(&config.data),
        truth: truth(config),
        frames_total: config.data.window_frames,
        frames_per_row: config.geometry().stride,
    };
    let geometry = config.geometry();
    Sample { plan, clips, remembered: vec![0.5; geometry.positions * geometry.channels] }
}

fn truth(config: &RunConfig) -> Truth {
    let action = LabelledSegment { segment: [10.0, 40.0], label: 1 };
    Truth { video: VideoIndex(0), fps: config.data.fps, actions: vec![action] }
}

/// The most bytes that a step with this many sampled clips holds at once, beyond what was there before it, and beyond the
/// features that it looks up. Not counted, therefore: the model and the samples with all pixels (allocated before the
/// step), and of each sampled clip its features, twice: as a tensor and as the rows to write back.
fn peak(replay: Replay, sampled: usize) -> usize {
    let config = config(replay);
    let device = Device::flex();
    let detector = Detector::new(&config, CLASSES, &Init::new(&device, Key::root(5)));
    let length = StageLength { steps: 10, steps_per_epoch: 5 };
    let learner = Learner::new(detector, &config.optim, length, &[]).expect("nothing is frozen");
    let inputs = [LaneInput { lane: LaneId(0), sample: Some(sample(&config, sampled)) }];
    let truth = [Some(truth(&config))];
    let sums: Arc<dyn MomentsReducer> = Arc::new(LocalMoments);
    let context = StepContext {
        learner: &learner,
        config: &config,
        truth: &truth,
        key: Key::root(1),
        normaliser: learner.module.detection.count(&truth),
        sums: &sums,
        encoder: ClipEncoder::new(&config.data, config.memory.chunk_clips, &device),
        goes_on: None,
        enter: &|_| {},
    };
    // Tables, scratch memory and the like are made in the first step and stay.
    let warm = step(&context, &inputs).expect("the window is not too long");
    assert!(warm.loss.is_finite());
    drop(warm);

    let (most, pending) = counting::peak_of(|| step(&context, &inputs).expect("the window is not too long"));
    assert_eq!(pending.rows.len(), sampled);
    let features: usize = pending.rows.iter().map(|row| size_of_val(row.values.as_slice())).sum();
    most - 2 * features
}

#[test]
fn the_peak_is_that_of_one_chunk_whatever_is_sampled() {
    let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (few, all, all_in_one_pass) =
        pool.install(|| (peak(Replay::On, 2), peak(Replay::On, CLIPS), peak(Replay::Off, CLIPS)));
    let ratio = all as f64 / few as f64;
    assert!((ratio - 1.0).abs() <= 0.05, "{all} bytes with all clips, {few} with two of ten");
    assert!(all_in_one_pass >= 2 * all, "{all_in_one_pass} bytes in one pass, {all} with replay");
}
