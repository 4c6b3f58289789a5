//! Annotations as one JSON file with a `database` (spec 70, section 2), and the variants that others made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;

use super::{DatasetError, Raw, RawAction, RawLabel, RawVideo};

#[derive(Deserialize)]
struct File {
    database: serde_json::Map<String, Json>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    subset: String,
    #[serde(default)]
    duration: Option<Json>,
    #[serde(default)]
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    segment: [Json; 2],
    label: Json,
    /// The number of the class, which some releases give beside its name.
    #[serde(default)]
    label_id: Json,
}

/// Reads every video of the file, in the file's order.
pub(super) fn read(path: &Path) -> Result<Raw, DatasetError> {
    let bytes = std::fs::read(path).map_err(|source| DatasetError::Read { path: path.to_owned(), source })?;
    let file: File = serde_json::from_slice(&bytes)
        .map_err(|error| DatasetError::NotJson { path: path.to_owned(), message: error.to_string() })?;
    let mut numbers = BTreeMap::new();
    let videos = file
        .database
        .into_iter()
        .map(|(id, entry)| {
            video(&id, entry, &mut numbers).map_err(|message| DatasetError::BadEntry {
                path: path.to_owned(),
                video: id,
                message,
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Raw { videos, numbers, ..Raw::default() })
}

fn video(id: &str, entry: Json, numbers: &mut BTreeMap<String, u32>) -> Result<RawVideo, String> {
    let entry: Entry = serde_json::from_value(entry).map_err(|error| error.to_string())?;
    let duration = entry.duration.as_ref().map(|value| number("duration", value)).transpose()?;
    for annotation in &entry.annotations {
        let number = annotation.label_id.as_u64().and_then(|number| u32::try_from(number).ok());
        if let (Json::String(name), Some(number)) = (&annotation.label, number) {
            numbers.insert(name.clone(), number);
        }
    }
    let actions = entry.annotations.iter().map(action).collect::<Result<_, _>>()?;
    Ok(RawVideo { id: id.to_owned(), subset: entry.subset, duration, actions })
}

fn action(annotation: &Annotation) -> Result<RawAction, String> {
    let label = match &annotation.label {
        Json::String(name) => RawLabel::Name(name.clone()),
        other => other
            .as_u64()
            .and_then(|id| usize::try_from(id).ok())
            .map(RawLabel::Id)
            .ok_or_else(|| format!("`label` is {other}, neither a name nor a class number"))?,
    };
    let [start, end] = &annotation.segment;
    Ok(RawAction { label, start: number("segment", start)?, end: number("segment", end)? })
}

/// A number, or a number written as text (HACS writes durations so); `null` is not a number, to be dropped and counted.
fn number(field: &str, value: &Json) -> Result<f64, String> {
    match value {
        Json::Null => Ok(f64::NAN),
        Json::String(text) => text.trim().parse().map_err(|_| format!("`{field}` is `{text}`, not a number")),
        other => other.as_f64().ok_or_else(|| format!("`{field}` is {other}, not a number")),
    }
}

/// A class with a start and an end in seconds.
pub(crate) type NamedSpan = (String, f64, f64);

/// What annotations say of one subset, or of all, nothing mended.
pub(crate) struct SubsetActions {
    /// Id and actions of each video.
    pub(crate) videos: Vec<(String, Vec<NamedSpan>)>,
    /// The number of each class that any subset shows, where the annotations number them.
    pub(crate) numbers: BTreeMap<String, u32>,
}

/// Reads one subset, or all.
pub(crate) fn read_subset(path: &Path, subset: Option<&str>) -> Result<SubsetActions, DatasetError> {
    let raw = read(path)?;
    let present: BTreeSet<String> = raw.videos.iter().map(|video| video.subset.clone()).collect();
    if let Some(wanted) = subset.filter(|wanted| !present.contains(*wanted)) {
        return Err(DatasetError::NoSuchSubset {
            annotations: path.display().to_string(),
            wanted: wanted.to_owned(),
            key: "data.validation_subset",
            present: present.into_iter().collect(),
        });
    }
    let videos = raw
        .videos
        .into_iter()
        .filter(|video| subset.is_none_or(|wanted| video.subset == wanted))
        .map(|video| {
            let actions = video
                .actions
                .into_iter()
                .map(|action| match action.label {
                    RawLabel::Name(name) => Ok((name, action.start, action.end)),
                    RawLabel::Id(label) => {
                        Err(DatasetError::LabelWithoutName { video: video.id.clone(), label })
                    }
                })
                .collect::<Result<_, _>>()?;
            Ok((video.id, actions))
        })
        .collect::<Result<_, DatasetError>>()?;
    Ok(SubsetActions { videos, numbers: raw.numbers })
}
