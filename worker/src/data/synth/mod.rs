//! NOTHING -> A DATA SET: real H.264 videos of moving shapes, and annotations that say exactly when each moves how.
//!
//! Takes: settings. Gives: a folder with `videos/*.mp4`, `synth.json` and, written last, `annotations.json` in ActivityNet's
//! layout. Next: training reads it like any other data set.

mod draw;
mod encode;
mod mux;
mod script;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use longtake_shared::config::SynthConfig;
use longtake_shared::dataset::Subset;
use longtake_shared::hint::{ExitCode, Hint};
use longtake_shared::stop::Stop;
use longtake_shared::units::{ByteCount, Seconds};
use serde_json::{Map, Value, json};

use self::script::{Movement, Script};
use super::decode::Rate;

/// Rises when the same settings give other videos: an older folder is then not taken for a whole one.
const GENERATOR: u32 = 1;
/// Largest sides that OpenH264's encoder takes.
const MAX_WIDTH: usize = 3840;
const MAX_HEIGHT: usize = 2160;

/// Why no data set was made.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// A setting that no video can follow.
    #[error("`synth.{key}` is {value}, which is not {allowed}")]
    Setting {
        /// The key below `synth`.
        key: &'static str,
        /// What was asked for.
        value: String,
        /// What is possible.
        allowed: String,
    },
    /// The folder holds something else.
    #[error("`{}` is not empty and does not hold this data set", .0.display())]
    NotEmpty(PathBuf),
    /// The file system failed.
    #[error("`{}` cannot be written: {source}", path.display())]
    Write {
        /// File or folder.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// OpenH264 failed.
    #[error("video `{video}` cannot be encoded: {reason}")]
    Encode {
        /// The video's id.
        video: String,
        /// What it says.
        reason: String,
    },
    /// A signal has asked to stop.
    #[error("the data set was not made: a signal has asked to stop")]
    Stopped,
}

impl Hint for SynthError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotEmpty(_) => Some("name another folder, or remove this one first".into()),
            Self::Write { .. } => Some("check that the disk has room and the folder may be written".into()),
            Self::Setting { .. } | Self::Encode { .. } | Self::Stopped => None,
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Setting { .. } | Self::NotEmpty(_) => ExitCode::NeverRestart,
            Self::Write { source, .. } => ExitCode::of_named_file(source),
            Self::Encode { .. } => ExitCode::Failed,
            Self::Stopped => ExitCode::Interrupted,
        }
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthReport {
    /// Videos of both subsets.
    pub videos: usize,
    /// Frames of all videos.
    pub frames: u64,
    /// Annotated actions.
    pub actions: usize,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Size of the videos.
    pub bytes: ByteCount,
    /// Whether the folder held this very data set already and was left as it is.
    pub reused: bool,
}

/// One video to be made.
struct Plan {
    id: String,
    subset: Subset,
    script: Script,
}

/// Makes a data set in `folder`, which must be absent, empty, or hold this very data set already.
///
/// Everything is written into a folder beside it, which is renamed at the end. The same settings give the same bytes.
/// `progress` is told (videos done, videos in all), from the calling thread; `stop` is looked at after each video.
pub fn write(
    config: &SynthConfig,
    folder: &Path,
    stop: &Stop,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<SynthReport, SynthError> {
    let rate = check(config)?;
    let plans = plans(config);
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return reuse(config, folder, &plans);
    }
    let partial = Partial::create(folder)?;
    let videos = partial.path.join("videos");
    fs::create_dir(&videos).map_err(failed(&videos))?;
    let told = &mut |done, total| {
        progress(done, total);
        if stop.asked() { Err(SynthError::Stopped) } else { Ok(()) }
    };
    let bytes = encode_all(config, rate, &plans, &videos, told)?;
    write_json(&partial.path.join("synth.json"), &identity(config))?;
    write_json(&partial.path.join("annotations.json"), &annotations(config, &plans))?;
    partial.finish(folder)?;
    Ok(report(config, &plans, bytes, false))
}

fn check(config: &SynthConfig) -> Result<Rate, SynthError> {
    let range = |key, value: f64, low: f64, high: f64| {
        if (low..=high).contains(&value) {
            return Ok(());
        }
        Err(SynthError::Setting { key, value: value.to_string(), allowed: format!("from {low} to {high}") })
    };
    range("training_videos", config.training_videos as f64, 0.0, 99_999.0)?;
    range("validation_videos", config.validation_videos as f64, 0.0, 99_999.0)?;
    range("min_duration", config.min_duration.0, 1.0, 3600.0)?;
    range("max_duration", config.max_duration.0, config.min_duration.0, 3600.0)?;
    range("classes", config.classes as f64, 1.0, Movement::ALL.len() as f64)?;
    range("fps", config.fps, 1.0, 240.0)?;
    for (key, side, largest) in [("width", config.width, MAX_WIDTH), ("height", config.height, MAX_HEIGHT)] {
        if !(32..=largest).contains(&side) || side % 2 != 0 {
            let allowed = format!("an even number from 32 to {largest}");
            return Err(SynthError::Setting { key, value: side.to_string(), allowed });
        }
    }
    Rate::from_fps(config.fps).ok_or_else(|| SynthError::Setting {
        key: "fps",
        value: config.fps.to_string(),
        allowed: "a frame rate".into(),
    })
}

fn plans(config: &SynthConfig) -> Vec<Plan> {
    let training = (0..config.training_videos).map(|number| ("train", Subset::Training, number));
    let validation = (0..config.validation_videos).map(|number| ("val", Subset::Validation, number));
    training
        .chain(validation)
        .map(|(name, subset, number)| Plan {
            id: format!("{name}_{number:03}"),
            subset,
            script: Script::new(config, name, number),
        })
        .collect()
}

/// Encodes all videos on as many threads as there are processors, unless `told` ends it. Returns the bytes written.
fn encode_all(
    config: &SynthConfig,
    rate: Rate,
    plans: &[Plan],
    folder: &Path,
    told: &mut dyn FnMut(usize, usize) -> Result<(), SynthError>,
) -> Result<u64, SynthError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(plans.len().max(1));
    let next = AtomicUsize::new(0);
    let (done, results) = mpsc::channel();
    told(0, plans.len())?;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // The receiver is gone after another video's failure: nothing more to do.
                    if done.send(encode_one(config, rate, plan, folder)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut bytes = 0;
        for (finished, result) in (1..).zip(results) {
            bytes += result?;
            told(finished, plans.len())?;
        }
        Ok(bytes)
    })
}

fn encode_one(config: &SynthConfig, rate: Rate, plan: &Plan, folder: &Path) -> Result<u64, SynthError> {
    let failure = |reason: String| SynthError::Encode { video: plan.id.clone(), reason };
    let stream = encode::encode(config, &plan.script).map_err(failure)?;
    let size = (config.width, config.height);
    let file =
        mux::mp4(&stream, size, rate).ok_or_else(|| failure("it is larger than an MP4 file holds".into()))?;
    let path = folder.join(format!("{}.mp4", plan.id));
    fs::write(&path, &file).map_err(failed(&path))?;
    Ok(file.len() as u64)
}

/// What makes two data sets the same.
fn identity(config: &SynthConfig) -> Value {
    json!({ "generator": GENERATOR, "settings": config })
}

fn annotations(config: &SynthConfig, plans: &[Plan]) -> Value {
    let seconds = |frame: usize| (frame as f64 / config.fps * 1e4).round() / 1e4;
    let mut database = Map::new();
    for plan in plans {
        let actions: Vec<Value> = plan
            .script
            .actions
            .iter()
            .map(|action| {
                let segment = [seconds(action.frames.start), seconds(action.frames.end)];
                json!({ "segment": segment, "label": action.movement.name() })
            })
            .collect();
        let video = json!({
            "subset": plan.subset,
            "duration": seconds(plan.script.frames),
            "fps": config.fps,
            "file": format!("videos/{}.mp4", plan.id),
            "annotations": actions,
        });
        database.insert(plan.id.clone(), video);
    }
    let taxonomy: Vec<Value> = Movement::ALL[..config.classes]
        .iter()
        .enumerate()
        .map(|(number, movement)| json!({ "nodeName": movement.name(), "nodeId": number }))
        .collect();
    json!({ "version": format!("longtake synth {GENERATOR}"), "taxonomy": taxonomy, "database": database })
}

fn report(config: &SynthConfig, plans: &[Plan], bytes: u64, reused: bool) -> SynthReport {
    SynthReport {
        videos: plans.len(),
        frames: plans.iter().map(|plan| plan.script.frames as u64).sum(),
        actions: plans.iter().map(|plan| plan.script.actions.len()).sum(),
        classes: Movement::ALL[..config.classes].iter().map(|movement| movement.name().to_owned()).collect(),
        bytes: ByteCount(bytes),
        reused,
    }
}

/// A folder that holds this very data set, whole, is as good as a new one.
fn reuse(config: &SynthConfig, folder: &Path, plans: &[Plan]) -> Result<SynthReport, SynthError> {
    let other = || SynthError::NotEmpty(folder.to_owned());
    let read =
        |name: &str| -> Option<Value> { serde_json::from_slice(&fs::read(folder.join(name)).ok()?).ok() };
    // Through text and back, as the file's numbers have gone.
    let expected = |value: Value| serde_json::from_str::<Value>(&value.to_string()).ok();
    let same = read("synth.json") == expected(identity(config))
        && read("annotations.json") == expected(annotations(config, plans));
    if !same {
        return Err(other());
    }
    let mut bytes = 0;
    for plan in plans {
        let path = folder.join("videos").join(format!("{}.mp4", plan.id));
        bytes += fs::metadata(path).ok().filter(fs::Metadata::is_file).ok_or_else(other)?.len();
    }
    Ok(report(config, plans, bytes, true))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SynthError + use<> {
    let path = path.to_owned();
    |source| SynthError::Write { path, source }
}

fn write_json(path: &Path, value: &Value) -> Result<(), SynthError> {
    let mut text = format!("{value:#}");
    text.push('\n');
    fs::write(path, text).map_err(failed(path))
}

/// The folder that is written before it gets its name; removed unless finished.
struct Partial {
    path: PathBuf,
    finished: bool,
}

impl Partial {
    fn create(folder: &Path) -> Result<Self, SynthError> {
        let name = folder.file_name().ok_or_else(|| SynthError::NotEmpty(folder.to_owned()))?;
        let parent =
            folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(failed(parent))?;
        let path = parent.join(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id()));
        fs::create_dir(&path).map_err(failed(&path))?;
        Ok(Self { path, finished: false })
    }

    fn finish(mut self, folder: &Path) -> Result<(), SynthError> {
        // Takes the place of an empty folder, and fails if something has come to lie in it.
        fs::rename(&self.path, folder).map_err(failed(folder))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            // The failure that led here is the one to report.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Length of a video in frames, at least one.
fn frames(duration: Seconds, fps: f64) -> usize {
    ((duration.0 * fps).round() as usize).max(1)
}

#[cfg(test)]
mod tests;
