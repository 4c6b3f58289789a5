//! Annotations of one subset for whoever judges results by them: nothing is mended, what is odd is told.

use std::collections::BTreeMap;
use std::path::Path;

use super::finding::{Finding, Mending};
use super::{
    DatasetError, NamedBy, Raw, RawLabel, RawVideo, Reader, Severity, activitynet, labels, subsets, thumos14,
};
use crate::config::DisputedVideos;

/// The option that names a subset of annotations that are given as a file.
const OPTION: &str = "--subset";

/// A class with a start and an end in seconds.
pub(crate) type NamedSpan = (String, f64, f64);

/// What annotations say of one subset, or of all, nothing mended.
pub(crate) struct SubsetActions {
    /// Id and actions of each video.
    pub(crate) videos: Vec<(String, Vec<NamedSpan>)>,
    /// The number of each class that any subset shows, where the annotations number them.
    pub(crate) numbers: BTreeMap<String, u32>,
    /// What somebody should know of them.
    pub(crate) findings: Vec<Finding>,
}

/// Reads one subset, or all, of a JSON file or of THUMOS14's folder of text files.
pub(crate) fn read_subset(path: &Path, subset: Option<&str>) -> Result<SubsetActions, DatasetError> {
    let folder = path.is_dir();
    let mut raw = if folder {
        thumos14::clean(thumos14::read_folder(path)?, DisputedVideos::Kept)
    } else {
        activitynet::read(path)?
    };
    let present = raw.subsets();
    let chosen = match subset {
        None => None,
        Some(wanted) => Some(choose(wanted, &present, folder).ok_or_else(|| DatasetError::NoSuchSubset {
            annotations: path.display().to_string(),
            wanted: wanted.to_owned(),
            named_by: NamedBy::Option(OPTION),
            present: present.clone(),
        })?),
    };
    if let Some(name) = chosen {
        raw.leave_out(&[name])?;
    } else {
        let named = raw.videos.iter().map(|video| video.subset.clone());
        let all: Vec<String> = named.chain(present.clone()).collect();
        raw.leave_out(&all.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    if let (Some(wanted), Some(name)) = (subset, chosen)
        && wanted != name
    {
        raw.findings.push(Finding::Respelled { wanted: wanted.to_owned(), name: name.to_owned() });
    }
    let Raw { videos, numbers, mut findings, .. } = raw;
    if findings.iter().any(|finding| finding.severity() == Severity::Error) {
        findings.retain(|finding| finding.severity() == Severity::Error);
        return Err(DatasetError::Refused { findings });
    }
    let videos: Vec<RawVideo> =
        videos.into_iter().filter(|video| chosen.is_none_or(|name| video.subset == name)).collect();
    let videos: Vec<_> = videos.into_iter().map(named).collect::<Result<_, _>>()?;
    findings.extend(remarkable(&videos));
    Ok(SubsetActions { videos, numbers, findings })
}

/// A subset as it is written; text files name theirs by a word of their own.
fn choose<'p>(wanted: &str, present: &'p [String], folder: bool) -> Option<&'p str> {
    let exact = present.iter().find(|name| *name == wanted);
    let found = if folder { exact.or_else(|| subsets::find_validation(wanted, present)) } else { exact };
    found.map(String::as_str)
}

fn named(video: RawVideo) -> Result<(String, Vec<NamedSpan>), DatasetError> {
    let RawVideo { id, actions, .. } = video;
    let mut spans = Vec::with_capacity(actions.len());
    for action in actions {
        match action.label {
            RawLabel::Name(name) => spans.push((name, action.start, action.end)),
            RawLabel::Id(label) => {
                return Err(DatasetError::LabelWithoutName { video: id, label, reader: Reader::Command });
            }
        }
    }
    Ok((id, spans))
}

fn remarkable(videos: &[(String, Vec<NamedSpan>)]) -> Vec<Finding> {
    let mut first_video = BTreeMap::new();
    let mut not_numbers = Vec::new();
    for (id, actions) in videos {
        for (name, start, end) in actions {
            first_video.entry(name.as_str()).or_insert(id.as_str());
            if !(start.is_finite() && end.is_finite()) {
                not_numbers.push(id);
            }
        }
    }
    let mut findings = labels::near(&first_video);
    findings.extend(not_numbers.first().map(|first| Finding::Mended {
        what: Mending::Unmatchable,
        times: not_numbers.len(),
        first: (*first).clone(),
    }));
    findings
}
