//! What the command line may ask of this library, as plain functions over shared types.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use burn::tensor::Device;
use longtake_shared::bench::Row;
use longtake_shared::config::{DataConfig, Resolved, RunConfig, misfits};
use longtake_shared::dataset::{self, Examined, ProbedVideo, Subset, Unreadable};
use longtake_shared::hint::{ExitCode, Failure, Hint as _};
use longtake_shared::metrics::{self, Detections};
use longtake_shared::random::Key;
use longtake_shared::role::{
    Depth, DetectRequest, Detected, EvaluateRequest, ImportReport, ImportRequest, NamedVideo, OnProgress,
    OnVideo, ProbeRequest, SynthReport, SynthRequest, WeightsReport, WorkRequest, WorkerBenchmark,
};
use longtake_shared::stop::Stop;
use longtake_shared::units::{ByteCount, Seconds, counted};

use crate::bench;
use crate::checkpoint::SaveBench;
use crate::data::decode::FrameStore;
use crate::data::{holes, synth as videos, video};
use crate::infer::nms::Kept;
use crate::infer::video::{DetectError, VideoDetector};
use crate::model::backbone::{Backbone, import as published};
use crate::model::detector::Detector;
use crate::model::layers::Init;
use crate::runtime;
use crate::tensors::TensorFile;
use crate::tensors::named::load_named;
use crate::train::checkpointing::save::{NOTE_CLASSES, NOTE_CONFIG};
use crate::train::stages::trainer::device;

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
/// Settings the encoder cannot meet, files that cannot be written, a folder that holds anything else, a request to stop.
pub fn synth(
    request: &SynthRequest,
    stop: &Stop,
    on_progress: OnProgress<'_>,
) -> Result<SynthReport, Failure> {
    let made = videos::write(&request.synth, &request.folder, stop, &mut |done, total| {
        on_progress(done as u64, total as u64);
    });
    let made = made.map_err(|error| stopped_or(stop, error.into()))?;
    Ok(SynthReport { videos: made.videos, actions: made.actions })
}

/// What failed after a request to stop is its consequence.
fn stopped_or(stop: &Stop, failure: Failure) -> Failure {
    if stop.asked() { Failure::interrupted() } else { failure }
}

/// Decodes some of a video, or all of it: where it was asked for, and where the file seems to have a hole.
///
/// # Errors
/// A file that is not a video, that is damaged where it was looked at, or that no decoder here can read.
pub fn probe(request: &ProbeRequest) -> Examined {
    let depth = match request.depth {
        // A file that cannot be read is for the decoder to complain of.
        Depth::Ends if holes::suspects(&request.video).unwrap_or(false) => Depth::Whole,
        depth => depth,
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

/// The settings that weights were trained with.
///
/// # Errors
/// A file that is no weights of a detector, or whose settings this version does not read.
pub fn carried_settings(weights: &Path) -> Result<Resolved, Failure> {
    let notes = notes_of(weights)?;
    let text = notes.get(NOTE_CONFIG).map(String::as_str).unwrap_or_default();
    let resolved = Resolved::from_json(text).ok();
    resolved.or_else(|| serde_json::from_str::<RunConfig>(text).ok().map(Resolved::from)).ok_or_else(|| {
        let path = weights.display();
        Failure::new(format!("the weights `{path}` do not carry settings this version reads"))
            .hint("name a configuration with `--config`")
            .never_restart()
    })
}

/// Finds actions, video by video in the order of the request.
///
/// # Errors
/// Weights that cannot be read or do not fit the settings, an error of `on_video`, a request to stop; what is wrong with a
/// video is told to `on_video` instead.
pub fn detect(request: &DetectRequest, stop: &Stop, on_video: OnVideo<'_>) -> Result<(), Failure> {
    let search = Search::new(&request.weights, &request.settings)?;
    for (index, video) in request.videos.iter().enumerate() {
        stop.check()?;
        let found = search.detections(&video.path, stop).and_then(|found| {
            let mut detected = search.nothing(vec![video.name.clone()]);
            search.add(&mut detected, video, found)?;
            Ok(detected)
        });
        // What was found completely is kept, even where a request to stop has come since.
        if found.is_err() {
            stop.check()?;
        }
        on_video(index, found)?;
    }
    Ok(())
}

/// Finds actions in the validation videos of a data set; counts videos.
///
/// # Errors
/// Weights or a data set that cannot be read, weights that do not fit the settings, a request to stop.
pub fn evaluate(
    request: &EvaluateRequest,
    stop: &Stop,
    on_progress: OnProgress<'_>,
) -> Result<Detected, Failure> {
    let search = Search::new(&request.weights, &request.settings)?;
    let dataset = dataset::load(&request.settings.config.data)?;
    let videos: Vec<NamedVideo> = dataset
        .subset(Subset::Validation)
        .into_iter()
        .map(|index| dataset.video(index))
        .map(|video| NamedVideo { name: video.id.clone(), path: video.path.clone() })
        .collect();
    let mut detected = search.nothing(videos.iter().map(|video| video.name.clone()).collect());
    on_progress(0, videos.len() as u64);
    for (done, video) in (1..).zip(&videos) {
        let found = search.detections(&video.path, stop).map_err(|failure| stopped_or(stop, failure))?;
        search.add(&mut detected, video, found)?;
        on_progress(done, videos.len() as u64);
    }
    Ok(detected)
}

/// Takes over weights of another program.
///
/// # Errors
/// A file that cannot be read or written, tensors of another model, a request to stop.
pub fn import(request: &ImportRequest, stop: &Stop) -> Result<ImportReport, Failure> {
    let imported = published::read(&request.weights)?;
    stop.check()?;
    imported.save(&request.output, stop).map_err(|error| stopped_or(stop, error.into()))?;
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
    let fresh = Backbone::new(backbone, &Init::new(&device(), Key::root(config.run.seed)));
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

fn unreadable(path: &Path, what: &str) -> Failure {
    Failure::new(format!("the weights `{}` {what}", path.display()))
        .hint("give weights that `longtake train` has written, such as `runs/quickstart/best.safetensors`")
        .never_restart()
}

/// The notes that a run leaves in a file of weights; the tensors are not read.
fn notes_of(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let read = || {
        let mut file = File::open(path)?;
        let mut header = vec![0; 8];
        file.read_exact(&mut header)?;
        // A safetensors file begins with the length of its header, in eight bytes; what is longer than this is no such file.
        let length = header[..8].try_into().map_or(0, u64::from_le_bytes).min(100 << 20);
        file.take(length).read_to_end(&mut header)?;
        Ok(header)
    };
    let header = read().map_err(|error| not_read(path, &error))?;
    TensorFile::notes(&header).ok_or_else(|| unreadable(path, "are not whole, or no safetensors file"))
}

fn not_read(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => unreadable(path, "are not whole"),
        _ => Failure {
            exit: ExitCode::of_named_file(error),
            ..unreadable(path, &format!("cannot be read: {error}"))
        },
    }
}

/// A detector that is ready to look at videos.
struct Search {
    model: Detector,
    classes: Vec<String>,
    config: RunConfig,
    frames: FrameStore,
    device: Device,
}

impl Search {
    /// Loads weights that fit the settings.
    fn new(weights: &Path, settings: &Resolved) -> Result<Self, Failure> {
        let bytes = std::fs::read(weights).map_err(|error| not_read(weights, &error))?;
        let file = TensorFile::decode(&bytes)
            .map_err(|error| unreadable(weights, &format!("are not whole: {error}")))?;
        let classes = file.metadata.get(NOTE_CLASSES).and_then(|text| serde_json::from_str(text).ok());
        let classes: Vec<String> =
            classes.ok_or_else(|| unreadable(weights, "do not name the classes of a detector"))?;
        if let Ok(trained) = carried_settings(weights) {
            fitting(weights, &trained.config, settings)?;
        }
        let (config, device) = (settings.config.clone(), device());
        let fresh = Detector::new(&config, classes.len(), &Init::new(&device, Key::root(config.run.seed)));
        let (model, loaded) = load_named(fresh, &file.tensors);
        if let Some(first) = loaded.missing.first() {
            let count = counted(loaded.missing.len(), "tensor");
            return Err(unreadable(weights, &format!("lack {count}, the first is `{first}`"))
                .hint("use the settings that the weights were trained with"));
        }
        let frames = FrameStore::new(&passed_once(&config.data));
        Ok(Self { model, classes, config, frames, device })
    }

    /// No detection yet in these videos.
    fn nothing(&self, videos: Vec<String>) -> Detected {
        let detections = Detections { videos, labels: self.classes.clone(), items: Vec::new() };
        Detected { detections, durations: Vec::new(), cut: Vec::new() }
    }

    /// The detections of a video.
    fn detections(&self, video: &Path, stop: &Stop) -> Result<Kept, Failure> {
        let goes_on = || if stop.asked() { Err(DetectError::Stopped) } else { Ok(()) };
        let detector = VideoDetector {
            model: &self.model,
            config: &self.config,
            frames: &self.frames,
            device: &self.device,
            goes_on: Some(&goes_on),
        };
        Ok(detector.detect(video)?)
    }

    /// Adds what was found in the next video.
    fn add(&self, detected: &mut Detected, video: &NamedVideo, found: Kept) -> Result<(), Failure> {
        let index = detected.durations.len() as u32;
        detected.cut.push(found.cut);
        detected.detections.items.extend(found.detections.into_iter().map(|found| metrics::Detection {
            video: index,
            label: found.label as u32,
            start: f64::from(found.segment[0]),
            end: f64::from(found.segment[1]),
            score: f64::from(found.score),
        }));
        let frames = self.frames.length(&video.path)?;
        detected.durations.push(Seconds(frames as f64 / self.config.data.fps));
        Ok(())
    }
}

/// Refuses settings under which weights are not those that were trained, before a tensor of another shape does or, worse, none.
fn fitting(path: &Path, trained: &RunConfig, settings: &Resolved) -> Result<(), Failure> {
    let misfits = misfits(trained, settings);
    if misfits.is_empty() {
        return Ok(());
    }
    let message = format!("the settings do not fit the weights `{}`: {}", path.display(), misfits.join("; "));
    Err(Failure::new(message)
        .hint("leave `model` as the weights carry it, or give weights that were trained with these settings")
        .never_restart())
}
