//! What the command line may ask of this library, as plain functions over shared types.

use std::path::{Path, PathBuf};

use longtake_shared::bench::Row;
use longtake_shared::config::{DataConfig, Resolved, RunConfig};
use longtake_shared::dataset::{self, Examined, ProbedVideo, Subset, Unreadable};
use longtake_shared::hint::{ExitCode, Failure, Hint as _};
use longtake_shared::metrics::{self, Detections};
use longtake_shared::random::Key;
use longtake_shared::role::{
    Depth, DetectRequest, Detected, EvaluateRequest, ImportReport, ImportRequest, OnProgress, ProbeRequest,
    SynthReport, SynthRequest, WeightsReport, WorkRequest, WorkerBenchmark,
};
use longtake_shared::units::{ByteCount, Seconds};

use crate::bench;
use crate::checkpoint::{SaveBench, TensorData, TensorFile};
use crate::data::decode::FrameStore;
use crate::data::{holes, synth as videos, video};
use crate::infer::video::VideoDetector;
use crate::model::backbone::{VideoSwin, import as published};
use crate::model::detector::Detector;
use crate::model::layers::Init;
use crate::runtime;
use crate::train::save::{NOTE_CLASSES, NOTE_CONFIG};
use crate::train::tape::{NamedTensor, load_named};
use crate::train::trainer::device;

/// Is a worker of a run, from its start to its end.
///
/// # Errors
/// As sentences for the worker's log.
pub fn work(request: &WorkRequest) -> Result<ExitCode, Failure> {
    runtime::run(request)
}

/// Makes a data set; counts videos. The folder appears whole or not at all.
///
/// # Errors
/// Settings the encoder cannot meet, files that cannot be written, a folder that holds anything else.
pub fn synth(request: &SynthRequest, on_progress: OnProgress<'_>) -> Result<SynthReport, Failure> {
    let made = videos::write(&request.synth, &request.folder, &mut |done, total| {
        on_progress(done as u64, total as u64);
    })?;
    Ok(SynthReport { videos: made.videos, actions: made.actions })
}

/// Decodes some of a video, or all of it: where it was asked for, and where the file seems to have a hole.
///
/// # Errors
/// A file that is not a video, that is damaged where it was looked at, or that no decoder here can read.
pub fn probe(request: &ProbeRequest) -> Examined {
    let depth = match request.depth {
        // A file that cannot be read is for the decoder to complain of.
        Depth::Ends if !holes::suspects(&request.video).unwrap_or(false) => video::Depth::Ends,
        Depth::Ends | Depth::Whole => video::Depth::Whole,
    };
    let info = video::examine(&request.video, &request.data, depth)
        .map_err(|error| Unreadable { reason: error.fault.to_string(), hint: error.hint() })?;
    Ok(ProbedVideo {
        frames: info.frames as usize,
        duration: info.duration.0,
        width: info.width,
        height: info.height,
        decoder: info.decoder,
        reason: info.reason,
    })
}

/// Finds actions; counts videos.
///
/// # Errors
/// Weights or videos that cannot be read.
pub fn detect(request: &DetectRequest, on_progress: OnProgress<'_>) -> Result<Detected, Failure> {
    let weights = Weights::read(&request.weights)?;
    let config = match &request.config {
        Some(config) => (**config).clone(),
        None => weights.settings(&request.weights)?,
    };
    let named: Vec<(String, PathBuf)> = request
        .videos
        .iter()
        .map(|path| (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path.clone()))
        .collect();
    weights.detect(&request.weights, &config, &named, on_progress)
}

/// Finds actions in the validation videos of a data set; counts videos.
///
/// # Errors
/// Weights or a data set that cannot be read.
pub fn evaluate(request: &EvaluateRequest, on_progress: OnProgress<'_>) -> Result<Detected, Failure> {
    let weights = Weights::read(&request.weights)?;
    let dataset = dataset::load(&request.config.data)?;
    let named: Vec<(String, PathBuf)> = dataset
        .subset(Subset::Validation)
        .into_iter()
        .map(|index| (dataset.video(index).id.clone(), dataset.video(index).path.clone()))
        .collect();
    weights.detect(&request.weights, &request.config, &named, on_progress)
}

/// Takes over weights of another program.
///
/// # Errors
/// A file that cannot be read or written, tensors of another model.
pub fn import(request: &ImportRequest) -> Result<ImportReport, Failure> {
    let imported = published::read(&request.weights)?;
    imported.save(&request.output)?;
    let parameters = imported.tensors.values().map(|weight| weight.values.len() as u64).sum();
    Ok(ImportReport {
        output: request.output.clone(),
        model: imported.family.name().to_owned(),
        tensors: imported.tensors.len(),
        parameters,
        left_out: imported.unused,
    })
}

/// Which weights of the file in the settings the backbone would begin with.
///
/// # Errors
/// A file that cannot be read, weights of another shape, and unless the settings allow it a parameter that is missing.
pub fn starting_weights(config: &RunConfig) -> Result<WeightsReport, Failure> {
    let backbone = &config.model.backbone;
    let fresh = VideoSwin::new(backbone, &Init::new(&device(), Key::root(config.run.seed)));
    let (_, report) = published::load_into(fresh, backbone.weights.as_ref(), backbone.weights_may_lack)?;
    Ok(WeightsReport { used: report.used, missing: report.missing, unused: report.unused })
}

/// Measures a part of this library. Files it needs lie below the folder, which is empty.
///
/// # Errors
/// The part fails, or the folder cannot be used.
pub fn bench(what: WorkerBenchmark, folder: &Path) -> Result<Vec<Row>, Failure> {
    match what {
        WorkerBenchmark::Memory => bench::memory::measure(folder)
            .map_err(|error| Failure::new(error.to_string()).hint("name another folder with --folder")),
        WorkerBenchmark::Backbone => Ok(bench::backbone::measure(bench::backbone::RUNS)),
        WorkerBenchmark::AllReduce => Ok(bench::all_reduce::measure()?),
        WorkerBenchmark::Checkpoint => SaveBench::default().run(folder),
    }
}

/// Data settings for videos that are gone through once, from start to end: frames of two windows are kept, so that windows
/// that overlap decode each frame once.
fn passed_once(data: &DataConfig) -> DataConfig {
    let frame = (data.frame_height * data.frame_width * 3) as u64;
    let two_windows = ByteCount(2 * data.window_frames as u64 * frame);
    DataConfig { frame_cache: data.frame_cache.min(two_windows), ..data.clone() }
}

/// A file of weights with the notes that a run leaves in it.
struct Weights {
    tensors: Vec<NamedTensor>,
    config: Option<String>,
    classes: Vec<String>,
}

impl Weights {
    fn read(path: &Path) -> Result<Self, Failure> {
        let unreadable = |what: String| {
            Failure::new(format!("the weights `{}` {what}", path.display())).hint(
                "give weights that `longtake train` has written, such as `runs/quickstart/best.safetensors`",
            )
        };
        let bytes = std::fs::read(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
        let mut file =
            TensorFile::decode(&bytes).map_err(|error| unreadable(format!("are not whole: {error}")))?;
        let classes = file.metadata.get(NOTE_CLASSES).and_then(|text| serde_json::from_str(text).ok());
        let classes = classes.ok_or_else(|| unreadable("do not name the classes of a detector".into()))?;
        let tensors = file.tensors.into_iter().filter_map(|tensor| match tensor.data {
            TensorData::F32(values) => Some(NamedTensor { name: tensor.name, shape: tensor.shape, values }),
            _ => None,
        });
        Ok(Self { tensors: tensors.collect(), config: file.metadata.remove(NOTE_CONFIG), classes })
    }

    /// The settings the weights were trained with.
    fn settings(&self, path: &Path) -> Result<RunConfig, Failure> {
        let text = self.config.as_deref().unwrap_or_default();
        let resolved = Resolved::from_json(text).map(|resolved| resolved.config).ok();
        resolved.or_else(|| serde_json::from_str(text).ok()).ok_or_else(|| {
            Failure::new(format!("the weights `{}` do not carry settings this version reads", path.display()))
                .hint("name a configuration with `--config`")
        })
    }

    /// The detections of named videos, in their order.
    fn detect(
        &self,
        path: &Path,
        config: &RunConfig,
        videos: &[(String, PathBuf)],
        on_progress: OnProgress<'_>,
    ) -> Result<Detected, Failure> {
        let device = device();
        let fresh =
            Detector::new(config, self.classes.len(), &Init::new(&device, Key::root(config.run.seed)));
        let (model, loaded) = load_named(fresh, &self.tensors);
        if let Some(first) = loaded.missing.first() {
            let (path, count) = (path.display(), loaded.missing.len());
            return Err(Failure::new(format!(
                "the weights `{path}` lack {count} tensors, the first is `{first}`"
            ))
            .hint("use the settings the weights were trained with"));
        }
        let frames = FrameStore::new(&passed_once(&config.data));
        let detector =
            VideoDetector { model: &model, config, frames: &frames, device: &device, goes_on: None };
        let names = videos.iter().map(|(name, _)| name.clone()).collect();
        let mut detections = Detections { videos: names, labels: self.classes.clone(), items: Vec::new() };
        let (mut durations, mut cut) = (Vec::with_capacity(videos.len()), Vec::with_capacity(videos.len()));
        on_progress(0, videos.len() as u64);
        for (index, (_, file)) in videos.iter().enumerate() {
            let kept = detector.detect(file)?;
            cut.push(kept.cut);
            detections.items.extend(kept.detections.into_iter().map(|found| metrics::Detection {
                video: index as u32,
                label: found.label as u32,
                start: f64::from(found.segment[0]),
                end: f64::from(found.segment[1]),
                score: f64::from(found.score),
            }));
            durations.push(Seconds(frames.length(file)? as f64 / config.data.fps));
            on_progress(index as u64 + 1, videos.len() as u64);
        }
        Ok(Detected { detections, durations, cut })
    }
}
