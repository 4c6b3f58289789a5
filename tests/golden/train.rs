//! Three SGD steps with the long memory. The published engine writes the memory before its loss and Longtake after the
//! commit: the rows, and everything else, come out the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use longtake_shared::config::{FeatureGeometry, RunConfig};
use longtake_shared::ids::{LaneId, Step, VideoIndex};
use longtake_shared::random::Key;
use longtake_shared::units::FrameIndex;
use longtake_worker::data::augment::AugmentDraw;
use longtake_worker::data::plan::SamplePlan;
use longtake_worker::model::backbone::Backbone;
use longtake_worker::model::backbone::encoder::ClipEncoder;
use longtake_worker::model::detector::Detector;
use longtake_worker::model::heads::Localizer;
use longtake_worker::model::norm::{LocalMoments, MomentsReducer, apply_statistics};
use longtake_worker::model::pass::Pass;
use longtake_worker::model::truth::{LabelledSegment, Truth};
use longtake_worker::optim::Flat;
use longtake_worker::train::step::learner::{Learner, StageLength};
use longtake_worker::train::step::{FreshRows, InputClip, LaneInput, Pending, Sample, StepContext, step};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use crate::detector::{detector, run_config};
use crate::losses::regression;
use crate::support::{Case, Check, Runner, computed, f32_values, values};

/// Modules that this file runs.
pub(crate) const RUNNERS: &[(&str, Runner)] = &[("MemBankTrainEngine 3 SGD steps", three_steps)];

/// A stage so long that the learning rate does not move within three steps: the cases have a constant one.
const STAGE: StageLength = StageLength { steps: 1000, steps_per_epoch: 1000 };

/// Trainings that begin with weights whose last bits differ.
const NUDGED: u64 = 6;

fn settings(case: &Case) -> Result<RunConfig, String> {
    let mut config = run_config(case)?;
    let loss = &mut config.model.loss;
    loss.positive_iou = case.parsed("/criterion/train_cfg/assigner/pos_iou_thr")?;
    loss.negative_iou = case.parsed("/criterion/train_cfg/assigner/neg_iou_thr")?;
    loss.min_positive_iou = case.parsed("/criterion/train_cfg/assigner/min_pos_iou")?;
    loss.focal_alpha = case.parsed("/criterion/loss_cls/alpha")?;
    loss.focal_gamma = case.parsed("/criterion/loss_cls/gamma")?;
    loss.regression = regression(&case.parsed::<String>("/criterion/loss_segment/typename")?)?;
    config.optim.learning_rate = case.parsed("/optimizer/lr")?;
    config.optim.momentum = case.parsed("/optimizer/momentum")?;
    config.optim.weight_decay = case.parsed("/optimizer/weight_decay")?;
    config.optim.backbone_multiplier = case.parsed("/optimizer/lr_mult/name contains \"backbone\"")?;
    config.optim.clip_norm = 0.0;
    config.optim.schedule.warmup_steps = 0;
    Ok(config)
}

/// The learner and the memory of a case, step by step.
struct Training<'a> {
    case: &'a Case,
    config: RunConfig,
    device: Device,
    learner: Learner<Detector>,
    memory: Memory,
}

/// What one step was given, and what it came to before its commit.
struct Stepped {
    number: usize,
    inputs: Vec<LaneInput>,
    pending: Pending,
}

impl<'a> Training<'a> {
    fn new(case: &'a Case, change: impl FnOnce(Detector) -> Detector) -> Result<Self, String> {
        let config = settings(case)?;
        let device = Device::flex();
        let module = change(detector(case, &config, &device)?);
        let frozen = Backbone::frozen_prefixes(&config.model.backbone);
        let frozen: Vec<String> = frozen.iter().map(|prefix| format!("backbone.{prefix}")).collect();
        let learner = Learner::new(module, &config.optim, STAGE, &frozen).map_err(|e| e.to_string())?;
        let memory = Memory::of(case, &config)?;
        Ok(Self { case, config, device, learner, memory })
    }

    fn step(&self, number: usize) -> Result<Stepped, String> {
        let inputs = inputs(self.case, &self.config, &self.memory, number)?;
        let truth: Vec<Option<Truth>> = (inputs.iter())
            .map(|input| input.sample.as_ref().map(|sample| sample.plan.truth.clone()))
            .collect();
        let [height, width]: [usize; 2] = self.case.parsed("/config/hw")?;
        let clip_shape = [3, self.config.data.clip_frames, height, width];
        let sums: Arc<dyn MomentsReducer> = Arc::new(LocalMoments);
        let context = StepContext {
            learner: &self.learner,
            config: &self.config,
            truth: &truth,
            key: Key::root(0),
            normaliser: self.learner.module.detection.count(&truth),
            sums: &sums,
            encoder: ClipEncoder { clip_shape, ..ClipEncoder::new(&self.config.data, 1, &self.device) },
            goes_on: None,
            enter: &|_| {},
        };
        let pending = step(&context, &inputs).map_err(|e| e.to_string())?;
        Ok(Stepped { number, inputs, pending })
    }

    fn commit(&mut self, stepped: Stepped) -> Result<(), String> {
        let Stepped { inputs, pending, .. } = stepped;
        self.learner.advance(pending.gradients, true).map_err(|e| e.to_string())?;
        let detection = self.learner.module.detection.clone();
        self.learner.module.detection =
            apply_statistics(detection, &pending.statistics).map_err(|e| e.to_string())?;
        for fresh in pending.rows {
            self.memory.write(&inputs, &fresh);
        }
        Ok(())
    }

    /// What the head says about the windows that the step has put together, by the names of the case.
    fn scores(&self, stepped: &Stepped) -> Result<BTreeMap<String, Vec<f32>>, String> {
        let (config, inputs) = (&self.config, &stepped.inputs);
        let FeatureGeometry { channels, positions: rows, .. } = config.geometry();
        let mut features = Vec::new();
        for input in 0..inputs.len() {
            let mut window = Vec::new();
            for clip in 0..config.data.clips() {
                let rows = rows_of_clip(config, inputs, &stepped.pending.rows, (input, clip))?;
                window.extend_from_slice(rows);
            }
            features.extend(transposed(&window, channels));
        }
        let features_bct = TensorData::new(features, [inputs.len(), channels, rows]);
        let features_bct = Tensor::<3>::from_data(features_bct, &self.device);
        let keys: Vec<Key> = inputs.iter().map(|input| Key::root(u64::from(input.lane.0))).collect();
        let moments: Arc<dyn MomentsReducer> = Arc::new(LocalMoments);
        let pass = Pass::Train { keys: &keys };
        let Localizer::DaoTad(head) = &self.learner.module.detection;
        let output = head
            .forward(features_bct, &vec![1.0; inputs.len()], pass, &moments)
            .map_err(|e| e.to_string())?;
        let mut scores = BTreeMap::new();
        for (level, (logits, offsets)) in output.class_logits.iter().zip(&output.offsets).enumerate() {
            scores.insert(format!("output.step{}.cls.{level}", stepped.number), values(logits));
            scores.insert(format!("output.step{}.reg.{level}", stepped.number), values(offsets));
        }
        Ok(scores)
    }
}

fn three_steps(case: &Case) -> Result<(), String> {
    let mut training = Training::new(case, |module| module)?;
    // Batch statistics of a few positions divide by small deviations, so that the last bit of the weights moves scores by much
    // more than itself after some steps. How much, trainings with such weights show.
    let nudge = |seed| Training::new(case, |module| module.map(&mut LastBit(Key::root(seed).rng())));
    let mut nudged: Vec<Training<'_>> = (0..NUDGED).map(nudge).collect::<Result<_, String>>()?;
    let mut check = Check::new(case);
    for number in 1..=3 {
        let stepped = training.step(number)?;
        let (pending, config) = (&stepped.pending, &training.config);
        check_features(&mut check, case, config, &stepped.inputs, &pending.rows, number)?;
        let mut others = Vec::new();
        for training in &mut nudged {
            let stepped = training.step(number)?;
            others.push(training.scores(&stepped)?);
            training.commit(stepped)?;
        }
        check_scores(&mut check, &training.scores(&stepped)?, &others);
        let tolerance = if number == 1 { "loss_rel_step1" } else { "loss_rel_step3" };
        check.relative(&format!("output.step{number}.loss"), &[pending.loss], tolerance);
        check.relative(&format!("output.step{number}.loss_cls"), &pending.terms[..1], tolerance);
        check.relative(&format!("output.step{number}.loss_segment"), &pending.terms[1..], tolerance);
        if number == 1 {
            check_gradients(&mut check, case, &training.learner, &pending.gradients)?;
        }
        training.commit(stepped)?;
        check_state(&mut check, case, &training.learner, number);
        for (video, rows) in training.memory.videos.iter().enumerate() {
            check.absolute(&format!("memory.after_step{number}.video_{video:03}"), rows, "memory_abs");
        }
    }
    check.finish()
}

/// Moves each weight by at most its last bit, up, down or not at all.
struct LastBit(ChaCha8Rng);

impl ModuleMapper for LastBit {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let mut nudge = |value: f32| match self.0.next_u32() % 3 {
            0 => value.next_up(),
            1 => value.next_down(),
            _ => value,
        };
        param.map(|old| {
            let changed: Vec<f32> = values(&old).into_iter().map(&mut nudge).collect();
            Tensor::from_data(TensorData::new(changed, old.dims()), &old.device())
                .set_require_grad(old.is_require_grad())
        })
    }
}

/// Rows `[rows, C]` as features `[C, rows]`.
fn transposed(rows: &[f32], channels: usize) -> Vec<f32> {
    let count = rows.len() / channels;
    (0..channels).flat_map(|c| (0..count).map(move |row| rows[row * channels + c])).collect()
}

/// Rows of a clip of an input: fresh where it was sampled, remembered elsewhere.
fn rows_of_clip<'a>(
    config: &RunConfig,
    inputs: &'a [LaneInput],
    fresh: &'a [FreshRows],
    (input, clip): (usize, usize),
) -> Result<&'a [f32], String> {
    if let Some(fresh) = fresh.iter().find(|fresh| (fresh.input, fresh.clip) == (input, clip)) {
        return Ok(&fresh.values);
    }
    let sample = inputs[input].sample.as_ref().ok_or("an idle lane has no rows")?;
    let length = config.geometry().rows(config.data.clip_frames) * config.geometry().channels;
    Ok(&sample.remembered[clip * length..(clip + 1) * length])
}

/// What the sampled clips came to, and what was remembered of the others: `[clips, B, C, rows]`.
fn check_features(
    check: &mut Check<'_>,
    case: &Case,
    config: &RunConfig,
    inputs: &[LaneInput],
    fresh: &[FreshRows],
    number: usize,
) -> Result<(), String> {
    let channels = config.geometry().channels;
    for (name, indices) in [("bp_features", "keep_indices"), ("frozen_features", "drop_indices")] {
        let clips = case.integers(&format!("output.step{number}.{indices}"))?;
        let mut features = Vec::new();
        for clip in clips {
            for input in 0..inputs.len() {
                let rows = rows_of_clip(config, inputs, fresh, (input, *clip as usize))?;
                features.extend(transposed(rows, channels));
            }
        }
        check.absolute(&format!("output.step{number}.{name}"), &features, "memory_abs");
    }
    Ok(())
}

/// The cases name no tolerance for logits and offsets: they are held to that of the features they are made of, or to how far
/// the last bit of the weights moves them where that is more.
fn check_scores(
    check: &mut Check<'_>,
    scores: &BTreeMap<String, Vec<f32>>,
    nudged: &[BTreeMap<String, Vec<f32>>],
) {
    for (name, actual) in scores {
        let others = nudged.iter().flat_map(|other| actual.iter().zip(&other[name]));
        let moved = others.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        check.at_least(name, actual, "memory_abs", moved);
    }
}

/// Parameters and running statistics, those that the case has after this step.
fn check_state(check: &mut Check<'_>, case: &Case, learner: &Learner<Detector>, number: usize) {
    let prefix = format!("output.after_step{number}.");
    let tensors = learner.tensors();
    for name in case.names(&prefix).into_iter().filter(|name| !computed(name)) {
        match tensors.iter().find(|tensor| name.strip_prefix(&prefix) == Some(tensor.name.as_str())) {
            Some(tensor) => check.absolute(name, f32_values(tensor), "param_abs"),
            None => check.fail(format!("{name}: no such parameter")),
        }
    }
}

/// The gradient of each parameter that trains, and of no other.
fn check_gradients(
    check: &mut Check<'_>,
    case: &Case,
    learner: &Learner<Detector>,
    gradients: &Flat,
) -> Result<(), String> {
    let values = gradients.to_host().map_err(|e| e.to_string())?;
    let mut rest = values.as_slice();
    let mut compared = 0;
    for entry in learner.layout().trained() {
        let (gradient, after) = rest.split_at(entry.len());
        rest = after;
        let published = entry.path.strip_prefix("detection.").unwrap_or(&entry.path);
        check.gradient(&format!("grad.weights.{published}"), gradient);
        compared += 1;
    }
    let expected = case.names("grad.weights.").len();
    if compared != expected {
        check.fail(format!("{compared} parameters train instead of {expected}"));
    }
    Ok(())
}

/// The memory bank: rows of each video, `[rows, C]`.
struct Memory {
    channels: usize,
    videos: Vec<Vec<f32>>,
}

impl Memory {
    fn of(case: &Case, config: &RunConfig) -> Result<Self, String> {
        let videos = (0..case.integer("B")?)
            .map(|video| Ok(case.floats(&format!("memory.before.video_{video:03}"))?.to_vec()))
            .collect::<Result<_, String>>()?;
        Ok(Self { channels: config.geometry().channels, videos })
    }

    /// Where a row of a video lies; nowhere outside the bank.
    fn place(&self, video: usize, row: i64) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(row).ok()? * self.channels;
        (start < self.videos[video].len()).then(|| start..start + self.channels)
    }

    /// All rows of the window; zeros outside the bank.
    fn read(&self, plan: &SamplePlan) -> Vec<f32> {
        let video = plan.video.0 as usize;
        (0..(plan.clips * plan.rows_per_clip()) as i64)
            .flat_map(|row| match self.place(video, plan.first_row(0) + row) {
                Some(place) => self.videos[video][place].to_vec(),
                None => vec![0.0; self.channels],
            })
            .collect()
    }

    /// Replaces the rows of a clip; those outside the bank are dropped.
    fn write(&mut self, inputs: &[LaneInput], fresh: &FreshRows) {
        let Some(sample) = &inputs[fresh.input].sample else { return };
        let video = sample.plan.video.0 as usize;
        for (row, values) in (0..).zip(fresh.values.chunks(self.channels)) {
            if let Some(place) = self.place(video, sample.plan.first_row(fresh.clip) + row) {
                self.videos[video][place].copy_from_slice(values);
            }
        }
    }
}

/// The samples of a step. The cases show the same frames in each; only the clips change.
fn inputs(case: &Case, config: &RunConfig, memory: &Memory, number: usize) -> Result<Vec<LaneInput>, String> {
    let keep = case.integers(&format!("output.step{number}.keep_indices"))?;
    let sampled: Vec<usize> = keep.iter().map(|clip| *clip as usize).collect();
    let starts = case.integers("input.tshift")?;
    (0..case.integer("B")?)
        .map(|video| {
            let lane = LaneId(video as u32);
            let labels = case.integers(&format!("input.gt_labels.{video}"))?;
            let segments = case.segments(&format!("input.gt_segments.{video}"))?;
            let actions = segments
                .into_iter()
                .zip(labels)
                .map(|(segment, label)| LabelledSegment { segment, label: *label as usize })
                .collect();
            let plan = SamplePlan {
                step: Step(number as u64 - 1),
                lane,
                key: Key::root(0),
                video: VideoIndex(video as u32),
                start: FrameIndex(starts[video]),
                shift: 0,
                clips: config.data.clips(),
                clip_frames: config.data.clip_frames,
                sampled: sampled.clone(),
                augment: AugmentDraw::centred(&config.data),
                truth: Truth { video: VideoIndex(video as u32), fps: config.data.fps, actions },
                frames_total: config.geometry().stride * memory.videos[video].len() / memory.channels,
                frames_per_row: config.geometry().stride,
            };
            let clips = sampled
                .iter()
                .map(|&clip| Ok(InputClip { clip, pixels: pixels(case, config, video, clip)?, trains: true }))
                .collect::<Result<_, String>>()?;
            let remembered = memory.read(&plan);
            Ok(LaneInput { lane, sample: Some(Sample { plan, clips, remembered }) })
        })
        .collect()
}

/// Frames of a clip, `[3, L, H, W]`, of the case's `[B, 3, T, H, W]`.
fn pixels(case: &Case, config: &RunConfig, video: usize, clip: usize) -> Result<Vec<f32>, String> {
    let name = "input.step1.imgs";
    let &[_, colours, frames, height, width] = case.shape(name)? else {
        return Err(format!("`{name}` has not five axes"));
    };
    let length = config.data.clip_frames * height * width;
    let values = case.floats(name)?;
    let colour = |colour: usize| {
        let start = ((video * colours + colour) * frames + clip * config.data.clip_frames) * height * width;
        &values[start..start + length]
    };
    Ok((0..colours).flat_map(colour).copied().collect())
}
