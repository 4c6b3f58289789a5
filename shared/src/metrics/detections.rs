//! Detections, and the file they are exchanged in (spec 60, section 10).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::MetricsError;
use crate::dataset::Dataset;

/// One detection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Position in [`Detections::videos`].
    pub video: u32,
    /// Position in [`Detections::labels`].
    pub label: u32,
    /// Start in seconds.
    pub start: f64,
    /// End in seconds.
    pub end: f64,
    /// How sure the detector is; only the order matters.
    pub score: f64,
}

/// Detections of any number of videos.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Detections {
    /// Names of videos.
    pub videos: Vec<String>,
    /// Names of classes.
    pub labels: Vec<String>,
    /// All detections; their order decides between equal scores.
    pub items: Vec<Detection>,
}

#[derive(Deserialize)]
struct File {
    #[serde(alias = "database")]
    results: serde_json::Map<String, Json>,
}

#[derive(Deserialize)]
struct Entry {
    label: String,
    #[serde(alias = "scores")]
    score: f64,
    segment: [f64; 2],
}

#[derive(Serialize)]
struct WrittenFile<'d> {
    version: &'static str,
    results: BTreeMap<&'d str, Vec<Written<'d>>>,
    external_data: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Written<'d> {
    label: &'d str,
    score: f64,
    segment: [f64; 2],
}

impl Detections {
    /// No detection yet, with a data set's videos ([`crate::ids::VideoIndex`]) and classes as numbers.
    pub fn for_dataset(dataset: &Dataset) -> Self {
        Self {
            videos: dataset.videos.iter().map(|video| video.id.clone()).collect(),
            labels: dataset.classes.clone(),
            items: Vec::new(),
        }
    }

    /// Reads a results file, in the file's order; ActionFormer's spelling (`database`, `scores`) is understood.
    ///
    /// # Errors
    /// An unreadable file, or one of another layout: the sentence names video and entry.
    pub fn read(path: &Path) -> Result<Self, MetricsError> {
        let bytes =
            std::fs::read(path).map_err(|source| MetricsError::Access { path: path.to_owned(), source })?;
        Self::parse(&bytes).map_err(|message| MetricsError::NotResults { path: path.to_owned(), message })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let mut detections = Self::default();
        let mut labels: BTreeMap<String, u32> = BTreeMap::new();
        for (name, entries) in file.results {
            let Json::Array(entries) = entries else {
                return Err(format!("video `{name}` has no list of detections"));
            };
            let video = detections.videos.len() as u32;
            for (number, entry) in entries.into_iter().enumerate() {
                let entry: Entry = serde_json::from_value(entry)
                    .map_err(|error| format!("video `{name}`, detection {number}: {error}"))?;
                let label = *labels.entry(entry.label).or_insert_with_key(|label| {
                    detections.labels.push(label.clone());
                    detections.labels.len() as u32 - 1
                });
                let [start, end] = entry.segment;
                detections.items.push(Detection { video, label, start, end, score: entry.score });
            }
            detections.videos.push(name);
        }
        Ok(detections)
    }

    /// Brings the detections into the order of a results file: by video name, then best score first, then by start,
    /// end and class. Evaluated after this, memory and file give the same figures.
    pub fn sort(&mut self) {
        let (videos, labels) = (&self.videos, &self.labels);
        self.items.sort_by(|a, b| {
            videos[a.video as usize]
                .cmp(&videos[b.video as usize])
                .then(b.score.total_cmp(&a.score))
                .then(a.start.total_cmp(&b.start))
                .then(a.end.total_cmp(&b.end))
                .then_with(|| labels[a.label as usize].cmp(&labels[b.label as usize]))
        });
    }

    /// The results file, the same bytes for the same detections; videos without detections have an empty list.
    pub fn to_json(&self) -> String {
        let mut sorted = self.clone();
        sorted.sort();
        let mut results: BTreeMap<&str, Vec<Written>> =
            self.videos.iter().map(|video| (video.as_str(), Vec::new())).collect();
        for item in &sorted.items {
            results.entry(&self.videos[item.video as usize]).or_default().push(Written {
                label: &self.labels[item.label as usize],
                score: item.score,
                segment: [item.start, item.end],
            });
        }
        let file = WrittenFile { version: "VERSION 1.3", results, external_data: BTreeMap::new() };
        serde_json::to_string(&file).expect("names and numbers have a JSON form")
    }

    /// Writes the results file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), MetricsError> {
        std::fs::write(path, self.to_json())
            .map_err(|source| MetricsError::Access { path: path.to_owned(), source })
    }
}
