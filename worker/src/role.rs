//! What the command line may ask of this library, as plain functions over shared types.

use std::path::Path;

use longtake_shared::config::RunConfig;
use longtake_shared::dataset::{self, ProbedVideo, Subset};
use longtake_shared::hint::{ExitCode, Failure, Hint as _};
use longtake_shared::metrics::{Detection, Detections};
use longtake_shared::role::{
    BenchRow, CLASSES_METADATA, DetectRequest, Detected, EvaluateRequest, ImportReport, ImportRequest, OnProgress,
    ProbeRequest, SETTINGS_METADATA, SynthReport, SynthRequest, WorkRequest,
};
use longtake_shared::units::Seconds;

use crate::checkpoint::{TensorData, TensorFile};
use crate::data::decode::FrameStore;
use crate::data::{synth, video};
use crate::infer::video::VideoDetector;
use crate::model::detector::Detector;
use crate::model::layers::Init;
use crate::runtime;
use crate::train::tape::{NamedTensor, load_named};
use crate::train::trainer::device;

/// Is a worker of a run, from its start to its end.
///
/// # Errors
/// What made it fail, as a sentence for the worker's log.
pub fn work(request: &WorkRequest) -> Result<ExitCode, Failure> {
    if request.threads > 0 {
        // Fails only where a pool exists already, which is then the one that computes.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(request.threads).build_global();
    }
    runtime::run(&request.socket, request.index)
}

/// Makes a data set; counts videos.
///
/// # Errors
/// Settings the encoder cannot meet, files that cannot be written.
pub fn synth(request: &SynthRequest, on_progress: OnProgress<'_>) -> Result<SynthReport, Failure> {
    let mut told = |done: usize, total: usize| on_progress(done as u64, total as u64);
    let report = synth::write(&request.synth, &request.folder, &mut told)?;
    Ok(SynthReport { videos: report.videos, actions: report.actions })
}

/// Looks into a video.
///
/// # Errors
/// A file that is not a video, or that no decoder here can read.
pub fn probe(request: &ProbeRequest) -> Result<ProbedVideo, Failure> {
    let reader =
        video::VideoReader::open(&request.video, request.data.decoder, request.data.allow_truncated)?;
    let info = reader.info();
    Ok(ProbedVideo { frames: info.frames, duration: info.duration, width: info.width, height: info.height })
}

/// Finds actions; counts videos.
///
/// # Errors
/// Weights or videos that cannot be read.
pub fn detect(request: &DetectRequest, on_progress: OnProgress<'_>) -> Result<Detected, Failure> {
    let weights = Weights::read(&request.weights)?;
    let config = request.config.as_deref().unwrap_or(&weights.config);
    let videos: Vec<(String, &Path)> = request
        .videos
        .iter()
        .map(|video| {
            let name = video.file_stem().unwrap_or(video.as_os_str());
            (name.to_string_lossy().into_owned(), video.as_path())
        })
        .collect();
    weights.detect(config, &videos, on_progress)
}

/// Finds actions in the validation videos of a data set; counts videos.
///
/// # Errors
/// Weights or a data set that cannot be read, or classes that are not those of the weights.
pub fn evaluate(request: &EvaluateRequest, on_progress: OnProgress<'_>) -> Result<Detected, Failure> {
    let weights = Weights::read(&request.weights)?;
    let dataset = dataset::load(&request.config.data)?;
    if dataset.classes != weights.classes {
        return Err(Failure::new(format!(
            "the weights `{}` know the classes {}, but `{}` has {}",
            request.weights.display(),
            weights.classes.join(", "),
            request.config.data.annotations,
            dataset.classes.join(", "),
        ))
        .hint("evaluate on a data set with the same classes in the same order"));
    }
    let videos: Vec<(String, &Path)> = dataset
        .subset(Subset::Validation)
        .into_iter()
        .map(|video| dataset.video(video))
        .map(|video| (video.id.clone(), video.path.as_path()))
        .collect();
    weights.detect(&request.config, &videos, on_progress)
}

/// Takes over weights of another program.
///
/// # Errors
/// A file that cannot be read or written, tensors of another model.
pub fn import(request: &ImportRequest) -> Result<ImportReport, Failure> {
    Err(Failure::new(format!("the weights `{}` cannot be imported by this build", request.weights.display())))
}

/// Measures; an unknown name fails with the known ones as advice. Files it needs lie below the folder.
///
/// # Errors
/// An unknown name.
pub fn bench(name: &str, _folder: &Path) -> Result<Vec<BenchRow>, Failure> {
    Err(Failure::new(format!("there is no benchmark `{name}`")))
}

/// Weights as a run leaves them, with what they were trained on.
struct Weights {
    tensors: Vec<NamedTensor>,
    config: RunConfig,
    classes: Vec<String>,
    name: String,
}

impl Weights {
    fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let hint = "use the `best.safetensors` of a run of `longtake train`";
        let bytes = std::fs::read(path)
            .map_err(|error| Failure::new(format!("the weights `{name}` cannot be read: {error}")).hint(hint))?;
        let file = TensorFile::decode(&bytes)
            .map_err(|error| Failure::new(format!("`{name}` is no file of weights: {error}")).hint(hint))?;
        let note = |key: &str| {
            file.metadata.get(key).ok_or_else(|| {
                Failure::new(format!("the weights `{name}` do not say what they were trained with (`{key}`)")).hint(hint)
            })
        };
        let damaged = |error: serde_json::Error| {
            Failure::new(format!("the notes of the weights `{name}` cannot be read: {error}")).hint(hint)
        };
        let config = serde_json::from_str(note(SETTINGS_METADATA)?).map_err(damaged)?;
        let classes = serde_json::from_str(note(CLASSES_METADATA)?).map_err(damaged)?;
        let tensors = file
            .tensors
            .into_iter()
            .filter_map(|tensor| match tensor.data {
                TensorData::F32(values) => Some(NamedTensor { name: tensor.name, shape: tensor.shape, values }),
                _ => None,
            })
            .collect();
        Ok(Self { tensors, config, classes, name })
    }

    fn detect(
        &self,
        config: &RunConfig,
        videos: &[(String, &Path)],
        on_progress: OnProgress<'_>,
    ) -> Result<Detected, Failure> {
        let device = device();
        let fresh = Detector::new(config, self.classes.len(), &Init::new(&device, longtake_shared::random::Key::root(0)));
        let (model, loaded) = load_named(fresh, &self.tensors);
        if let Some(first) = loaded.missing.first() {
            return Err(Failure::new(format!(
                "the weights `{}` lack {} tensors of the model in the settings, the first is `{first}`",
                self.name,
                loaded.missing.len()
            ))
            .hint("leave out the settings to use those that the weights were trained with"));
        }
        let frames = FrameStore::new(&config.data);
        let detector = VideoDetector { model: &model, config, frames: &frames, device: &device };
        let (mut found, mut durations) = (Vec::new(), Vec::new());
        for (done, (id, path)) in videos.iter().enumerate() {
            let length = frames.length(path)?;
            durations.push(Seconds(length as f64 / config.data.fps));
            for detection in detector.detect(path)? {
                found.push(Detection {
                    video: done,
                    label: detection.label,
                    start: Seconds(f64::from(detection.segment[0])),
                    end: Seconds(f64::from(detection.segment[1])),
                    score: f64::from(detection.score),
                });
            }
            let _ = id;
            on_progress(done as u64 + 1, videos.len() as u64);
        }
        let videos = videos.iter().map(|(id, _)| id.clone()).collect();
        Ok(Detected { detections: Detections { videos, classes: self.classes.clone(), detections: found }, durations })
    }
}
