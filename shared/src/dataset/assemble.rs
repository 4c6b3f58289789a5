//! Takes raw annotations. Gives a [`Dataset`]: subsets chosen, labels numbered by name, times mended and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::files::Listing;
use super::{Action, Dataset, DatasetError, RawAction, RawLabel, RawVideo, Subset, Video, read, subsets};
use crate::config::DataConfig;
use crate::units::Seconds;

/// Reads a data set; the second result names the videos that have no file in the listing. Their path is empty, as all
/// are where there is no listing.
pub(super) fn assemble(
    config: &DataConfig,
    files: Option<&Listing>,
) -> Result<(Dataset, Vec<String>), DatasetError> {
    let mut raw = read(config)?;
    let mut remarks = std::mem::take(&mut raw.remarks);
    drop_blocked(config, &mut raw.videos, &mut remarks)?;

    let present: BTreeSet<&String> = raw.videos.iter().map(|video| &video.subset).collect();
    let present: Vec<String> = present.into_iter().cloned().collect();
    let (names, renamed) = subsets::resolve(config, &present)?;
    remarks.extend(renamed);
    let classes = Classes::of(config, &raw.videos)?;

    let (mut videos, mut missing, mut mended) = (Vec::new(), Vec::new(), Mended::default());
    for (subset, name) in [Subset::Training, Subset::Validation].into_iter().zip(&names) {
        let before = videos.len();
        let chosen: BTreeMap<&str, &RawVideo> = raw
            .videos
            .iter()
            .filter(|video| video.subset == *name)
            .map(|video| (video.id.as_str(), video))
            .collect();
        for (id, video) in chosen {
            let path = files.and_then(|files| files.find(id)).cloned().unwrap_or_else(|| {
                missing.push(id.to_owned());
                PathBuf::new()
            });
            let duration = video.duration.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
            let actions = mended.actions(video, duration, &classes)?;
            let duration = Seconds(duration.unwrap_or(0.0));
            videos.push(Video { id: id.to_owned(), subset, path, duration, actions });
        }
        if videos[before..].iter().all(|video| video.actions.is_empty()) {
            return Err(DatasetError::NoActions {
                annotations: config.annotations.clone(),
                subset: name.clone(),
                videos: videos.len() - before,
            });
        }
    }
    remarks.extend(mended.remarks());
    Ok((Dataset { classes: classes.names, videos, remarks }, missing))
}

fn drop_blocked(
    config: &DataConfig,
    videos: &mut Vec<RawVideo>,
    remarks: &mut Vec<String>,
) -> Result<(), DatasetError> {
    if config.blocked.is_empty() {
        return Ok(());
    }
    let blocked = read_blocked(Path::new(&config.blocked))?;
    let before = videos.len();
    videos.retain(|video| !blocked.contains(bare(&video.id)));
    remarks.push(format!("{} videos of `{}` are left out", before - videos.len(), config.blocked));
    Ok(())
}

/// The ids of a blocked list, without the `v_` that some releases put in front.
pub(crate) fn read_blocked(path: &Path) -> Result<BTreeSet<String>, DatasetError> {
    let bytes = std::fs::read(path).map_err(|source| DatasetError::Read { path: path.to_owned(), source })?;
    let ids: Vec<String> = serde_json::from_slice(&bytes).map_err(|error| DatasetError::BadBlockedList {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    Ok(ids.iter().map(|id| bare(id).to_owned()).collect())
}

fn bare(id: &str) -> &str {
    id.strip_prefix("v_").unwrap_or(id)
}

/// Names of classes and their positions.
struct Classes {
    names: Vec<String>,
    positions: BTreeMap<String, usize>,
    /// The file they come from; empty where they come from the annotations.
    list: String,
}

impl Classes {
    fn of(config: &DataConfig, videos: &[RawVideo]) -> Result<Self, DatasetError> {
        let names = if config.classes.is_empty() {
            let names: BTreeSet<&String> = videos
                .iter()
                .flat_map(|video| &video.actions)
                .filter_map(|action| match &action.label {
                    RawLabel::Name(name) => Some(name),
                    RawLabel::Id(_) => None,
                })
                .collect();
            names.into_iter().cloned().collect()
        } else {
            let path = PathBuf::from(&config.classes);
            let text =
                std::fs::read_to_string(&path).map_err(|source| DatasetError::Read { path, source })?;
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let mut positions = BTreeMap::new();
        for (position, name) in names.iter().enumerate() {
            if positions.insert(name.clone(), position).is_some() {
                return Err(DatasetError::DuplicateClass {
                    path: PathBuf::from(&config.classes),
                    class: name.clone(),
                });
            }
        }
        Ok(Self { names, positions, list: config.classes.clone() })
    }

    fn position(&self, video: &str, label: &RawLabel) -> Result<usize, DatasetError> {
        match label {
            RawLabel::Name(name) => {
                self.positions.get(name).copied().ok_or_else(|| self.unknown(video, name))
            }
            RawLabel::Id(id) if self.list.is_empty() => {
                Err(DatasetError::LabelWithoutName { video: video.to_owned(), label: *id })
            }
            RawLabel::Id(id) if *id < self.names.len() => Ok(*id),
            RawLabel::Id(id) => Err(self.unknown(video, &id.to_string())),
        }
    }

    fn unknown(&self, video: &str, label: &str) -> DatasetError {
        let nearest = self
            .names
            .iter()
            .map(|name| (strsim::damerau_levenshtein(name, label), name))
            .min()
            .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
            .map(|(_, name)| name.clone());
        DatasetError::UnknownLabel {
            video: video.to_owned(),
            label: label.to_owned(),
            classes: self.list.clone(),
            nearest,
        }
    }
}

/// How often something was mended or dropped, and in which video first.
#[derive(Default)]
struct Count {
    times: usize,
    first: String,
}

impl Count {
    fn add(&mut self, video: &str, happened: bool) {
        if happened && self.times == 0 {
            video.clone_into(&mut self.first);
        }
        self.times += usize::from(happened);
    }
}

/// Counts of what was mended or dropped.
#[derive(Default)]
struct Mended {
    dropped: Count,
    clipped: Count,
    without_duration: Count,
    without_actions: Count,
}

impl Mended {
    fn actions(
        &mut self,
        video: &RawVideo,
        duration: Option<f64>,
        classes: &Classes,
    ) -> Result<Vec<Action>, DatasetError> {
        self.without_duration.add(&video.id, duration.is_none());
        let last = duration.unwrap_or(f64::INFINITY);
        let mut actions = Vec::with_capacity(video.actions.len());
        for RawAction { label, start, end } in &video.actions {
            let label = classes.position(&video.id, label)?;
            let (inside_start, inside_end) = (start.max(0.0), end.min(last));
            let usable = start.is_finite() && end.is_finite() && inside_start < inside_end;
            self.dropped.add(&video.id, !usable);
            if !usable {
                continue;
            }
            self.clipped.add(&video.id, *start < 0.0 || *end > last);
            actions.push(Action { start: Seconds(inside_start), end: Seconds(inside_end), label });
        }
        actions.sort_by(|a, b| {
            a.start.0.total_cmp(&b.start.0).then(a.end.0.total_cmp(&b.end.0)).then(a.label.cmp(&b.label))
        });
        self.without_actions.add(&video.id, actions.is_empty());
        Ok(actions)
    }

    fn remarks(&self) -> Vec<String> {
        [
            (&self.dropped, "actions end before they start, or lie outside their video: dropped"),
            (&self.clipped, "actions reach beyond their video: clipped"),
            (&self.without_duration, "videos have no annotated duration"),
            (&self.without_actions, "videos show no action"),
        ]
        .into_iter()
        .filter(|(count, _)| count.times > 0)
        .map(|(Count { times, first }, what)| format!("{times} {what} (first: `{first}`)"))
        .collect()
    }
}
