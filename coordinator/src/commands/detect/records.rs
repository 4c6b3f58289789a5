//! One file a video with what was found in it and what it was found with, so that an interrupted call can be gone on with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use longtake_shared::config::RunConfig;
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::metrics::Detections;
use longtake_shared::role::{Detected, NamedVideo};
use longtake_shared::units::Seconds;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::commands::files;

/// Where a record stands in a results file.
const FIELD: &str = "longtake";

/// What decides on the detections of all videos of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Means {
    /// Another version may find something else.
    version: String,
    /// Hash of the file of weights.
    weights: String,
    /// Hash of the settings that detection looks at.
    settings: String,
}

impl Means {
    /// The weights and settings of a call.
    pub(super) fn of(weights: &Path, config: &RunConfig) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure {
            exit: ExitCode::of_named_file(&error),
            ..Failure::new(format!("the weights `{}` cannot be read: {error}", weights.display()))
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(fs::File::open(weights).map_err(failed)?).map_err(failed)?;
        let looked_at =
            json!({ "data": config.data, "model": config.model, "evaluation": config.evaluation });
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            weights: hasher.finalize().to_hex().to_string(),
            settings: blake3::hash(looked_at.to_string().as_bytes()).to_hex().to_string(),
        })
    }
}

/// What a result was made of, and the length of its video.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    means: Means,
    file: Stamp,
    duration: Seconds,
    /// Detections that the limit of the settings has left out.
    cut: usize,
}

/// A file at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    path: String,
    bytes: u64,
    /// Nanoseconds since 1970, as a text: JSON numbers are not that exact everywhere.
    modified: String,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let path = fs::canonicalize(path).ok()?;
        let found = fs::metadata(&path).ok()?;
        let modified = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos().to_string();
        Some(Self { path: path.to_string_lossy().into_owned(), bytes: found.len(), modified })
    }
}

/// The records of one call.
#[derive(Debug)]
pub(super) struct Records {
    folder: PathBuf,
    means: Means,
    /// The videos' files before they were looked at, by name.
    stamps: BTreeMap<String, Option<Stamp>>,
}

impl Records {
    /// Below the folder of a call's results.
    pub(super) fn new(out: &Path, means: Means, videos: &[NamedVideo]) -> Self {
        let stamps = videos.iter().map(|video| (video.name.clone(), Stamp::of(&video.path))).collect();
        Self { folder: out.join("videos"), means, stamps }
    }

    fn stamp(&self, video: &NamedVideo) -> Option<&Stamp> {
        self.stamps.get(&video.name).and_then(Option::as_ref)
    }

    /// The file of a video: its name may have folders.
    fn path(&self, video: &NamedVideo) -> PathBuf {
        self.folder.join(format!("{}.json", video.name))
    }

    /// What an earlier call has found in this very file with the same means; nothing where there is none, or it is damaged.
    pub(super) fn find(&self, video: &NamedVideo) -> Option<Detected> {
        let path = self.path(video);
        let text = fs::read(&path).ok()?;
        let file: Value = serde_json::from_slice(&text).ok()?;
        let record: Record = serde_json::from_value(file["external_data"][FIELD].clone()).ok()?;
        if record.means != self.means || Some(&record.file) != self.stamp(video) {
            return None;
        }
        let detections =
            Detections::read(&path).ok().filter(|found| found.videos == [video.name.as_str()])?;
        Some(Detected { detections, durations: vec![record.duration], cut: vec![record.cut] })
    }

    /// The results file of this one video, with its record beside the results.
    ///
    /// # Errors
    /// The video has changed since the call began.
    pub(super) fn file(&self, video: &NamedVideo, detected: &Detected) -> Result<String, Failure> {
        let changed = || {
            Failure::new(format!("the video `{}` was changed while it was looked at", video.path.display()))
                .hint("detect again when it is whole")
        };
        let file = Stamp::of(&video.path).filter(|now| Some(now) == self.stamp(video)).ok_or_else(changed)?;
        let record = Record {
            means: self.means.clone(),
            file,
            duration: detected.durations.first().copied().unwrap_or_default(),
            cut: detected.cut.first().copied().unwrap_or_default(),
        };
        let no_json =
            |error: serde_json::Error| Failure::new(format!("the result has no JSON form: {error}"));
        let mut file: Value = serde_json::from_str(&detected.detections.to_json()).map_err(no_json)?;
        file["external_data"] = json!({ FIELD: record });
        Ok(file.to_string())
    }

    /// Writes that file.
    pub(super) fn write(&self, video: &NamedVideo, file: &str) -> Result<(), Failure> {
        files::write_whole(&self.path(video), file.as_bytes())
    }
}

/// Results of single videos as those of one call, with all classes by name.
pub(super) fn together(parts: &[Option<Detected>]) -> Detected {
    let mut whole = Detected { detections: Detections::default(), durations: Vec::new(), cut: Vec::new() };
    let mut labels: BTreeMap<&str, u32> = BTreeMap::new();
    for part in parts.iter().flatten() {
        let Detections { videos, labels: named, items } = &part.detections;
        let first = whole.detections.videos.len() as u32;
        let numbers: Vec<u32> = named
            .iter()
            .map(|label| {
                let next = labels.len() as u32;
                *labels.entry(label.as_str()).or_insert(next)
            })
            .collect();
        whole.detections.items.extend(items.iter().map(|item| {
            let mut item = *item;
            item.video += first;
            item.label = numbers[item.label as usize];
            item
        }));
        whole.detections.videos.extend(videos.iter().cloned());
        whole.durations.extend(&part.durations);
        whole.cut.extend(&part.cut);
    }
    let mut named: Vec<(u32, &str)> = labels.into_iter().map(|(label, number)| (number, label)).collect();
    named.sort_unstable();
    whole.detections.labels = named.into_iter().map(|(_, label)| label.to_owned()).collect();
    whole
}

#[cfg(test)]
mod tests {
    use longtake_shared::metrics::Detection;

    use super::*;

    fn detected(video: &str, labels: &[&str]) -> Detected {
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let item =
            Detection { video: 0, label: labels.len() as u32 - 1, start: 0.1, end: 1.0 / 3.0, score: 0.7 };
        let detections = Detections { videos: vec![video.to_owned()], labels, items: vec![item] };
        Detected { detections, durations: vec![Seconds(4.2)], cut: vec![3] }
    }

    #[test]
    fn a_result_is_found_again_until_anything_that_it_was_made_of_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("weights"), "1").unwrap();
        fs::write(path("x.mp4"), "video").unwrap();
        let video = NamedVideo { name: "deep/x".into(), path: path("x.mp4") };
        let videos = [video.clone()];
        let records = |config: &RunConfig| {
            Records::new(folder.path(), Means::of(&path("weights"), config).unwrap(), &videos)
        };
        let write = |records: &Records| {
            let file = records.file(&video, &detected("deep/x", &["dive"]))?;
            records.write(&video, &file)
        };
        let config = RunConfig::default();
        assert_eq!(records(&config).find(&video), None);
        write(&records(&config)).unwrap();
        assert_eq!(records(&config).find(&video), Some(detected("deep/x", &["dive"])));

        let mut other = config.clone();
        other.train.epochs += 1;
        assert!(records(&other).find(&video).is_some(), "detection does not look at it");
        other.evaluation.nms_threshold = 0.25;
        assert_eq!(records(&other).find(&video), None);
        fs::write(path("weights"), "2").unwrap();
        assert_eq!(records(&config).find(&video), None);
        fs::write(path("weights"), "1").unwrap();
        assert!(records(&config).find(&video).is_some());
        fs::write(path("x.mp4"), "another").unwrap();
        assert_eq!(records(&config).find(&video), None);
        let before = records(&config);
        fs::write(path("x.mp4"), "while it was looked at").unwrap();
        let failure = write(&before).unwrap_err();
        assert!(failure.message.contains("x.mp4"), "{}", failure.message);
        write(&records(&config)).unwrap();
        assert!(records(&config).find(&video).is_some());
        fs::write(path("videos/deep/x.json"), "{").unwrap();
        assert_eq!(records(&config).find(&video), None, "half a file is none");
    }

    #[test]
    fn results_are_put_together_by_the_names_of_their_classes() {
        let whole =
            together(&[Some(detected("a", &["dive", "swim"])), None, Some(detected("b", &["dive"])), None]);
        assert_eq!(
            (whole.detections.videos, whole.detections.labels),
            (vec!["a".into(), "b".into()], vec!["dive".into(), "swim".into()])
        );
        let places: Vec<(u32, u32)> =
            whole.detections.items.iter().map(|item| (item.video, item.label)).collect();
        assert_eq!((places, whole.durations.len()), (vec![(0, 1), (1, 0)], 2));
        assert_eq!(whole.cut, [3, 3]);
    }
}
