//! Detections, and the file they are exchanged in (spec 60, section 10).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::MetricsError;
use crate::dataset::Dataset;
use crate::json::{self, Kind, Member, Odd, Place, Value};
use crate::text;

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

/// Label, start and end, score. Times and scores that are not finite are counted and dropped where they are judged.
fn detection<'v>(entry: &'v Value<'_>) -> Result<(&'v str, [f64; 2], f64), Odd> {
    let label = entry.needed(&["label"])?.name("label")?;
    let segment = entry.needed(&["segment"])?.pair("segment")?;
    Ok((label, segment, entry.needed(&["score", "scores"])?.number("score")?))
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
    /// An unreadable file, one of another layout, or one that holds a video twice: the sentence names video and place.
    pub fn read(path: &Path) -> Result<Self, MetricsError> {
        let text = text::read(path)?;
        let wrong = |message: String| MetricsError::NotResults { path: path.to_owned(), message };
        let file = json::parse(&text).map_err(|error| wrong(error.to_string()))?;
        let at_place = |odd: Odd| wrong(format!("{}: {}", Place::of(&text, odd.at), odd.message));
        let results = file.needed(&["results", "database"]).map_err(at_place)?;
        let videos = results.members("`results`").map_err(at_place)?;
        if let Some((video, places)) = json::repeated(videos) {
            let [first, second] = places.map(|at| Place::of(&text, at));
            return Err(MetricsError::RepeatedVideo {
                path: path.to_owned(),
                video: video.to_owned(),
                first,
                second,
            });
        }
        Self::of_members(videos).map_err(at_place)
    }

    fn of_members(videos: &[Member<'_>]) -> Result<Self, Odd> {
        let mut detections = Self::default();
        let mut labels: BTreeMap<String, u32> = BTreeMap::new();
        for (name, entries) in videos {
            let Kind::List(entries) = &entries.kind else {
                return Err(entries.odd(format!("video `{name}` has no list of detections")));
            };
            let video = detections.videos.len() as u32;
            for (number, entry) in entries.iter().enumerate() {
                let within = |Odd { at, message }| Odd {
                    at,
                    message: format!("video `{name}`, detection {number}: {message}"),
                };
                let (label, [start, end], score) = detection(entry).map_err(within)?;
                let label = labels.get(label).copied().unwrap_or_else(|| {
                    let new = detections.labels.len() as u32;
                    detections.labels.push(label.to_owned());
                    labels.insert(label.to_owned(), new);
                    new
                });
                detections.items.push(Detection { video, label, start, end, score });
            }
            detections.videos.push(name.clone().into_owned());
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
