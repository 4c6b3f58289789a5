//! Takes raw annotations. Gives a [`Dataset`]: subsets chosen, labels numbered by name, times mended and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::error::MissingVideo;
use super::files::{Listing, bare};
use super::finding::{Finding, Mending};
use super::sameness::same_videos;
use super::{
    Action, Dataset, DatasetError, NamedBy, Raw, RawAction, RawLabel, RawVideo, Reader, Subset, Video,
    labels, read, subsets,
};
use crate::config::DataConfig;
use crate::json;
use crate::text;
use crate::units::Seconds;

/// Ids without a file that get a suggestion: each is compared with every file.
const SUGGESTED: usize = 10;

/// Reads a data set; the second result names the videos that have no file in the listing. Their path is empty, as all
/// are where there is no listing. What is wrong with it is among the remarks.
pub(super) fn assemble(
    config: &DataConfig,
    files: Option<&Listing>,
) -> Result<(Dataset, Vec<MissingVideo>), DatasetError> {
    let mut raw = read(config)?;
    drop_blocked(config, &mut raw)?;

    let (names, respelled) = subsets::resolve(config, &raw.subsets())?;
    raw.leave_out(&names.each_ref().map(String::as_str))?;
    let mut remarks = std::mem::take(&mut raw.findings);
    remarks.extend(respelled);
    let classes = Classes::of(config, &raw.videos)?;
    remarks.extend(classes.near());

    let (mut videos, mut mended) = (Vec::new(), Mended::default());
    for (subset, name) in [Subset::Training, Subset::Validation].into_iter().zip(&names) {
        let chosen: BTreeMap<&str, &RawVideo> = raw
            .videos
            .iter()
            .filter(|video| video.subset == *name)
            .map(|video| (video.id.as_str(), video))
            .collect();
        let mut of_subset = Mended::default();
        let before = videos.len();
        for (id, video) in chosen {
            let duration = video.duration.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
            let actions = of_subset.actions(video, duration, &classes)?;
            let duration = Seconds(duration.unwrap_or(0.0));
            videos.push(Video { id: id.to_owned(), subset, path: PathBuf::new(), duration, actions });
        }
        refuse_without_actions(config, subset, name, &videos[before..], &of_subset)?;
        mended.add(of_subset);
    }
    let missing = files.map_or_else(Vec::new, |files| find_files(files, &mut videos, &mut remarks));
    if names[0] != names[1] {
        remarks.extend(same_videos(&videos));
    }
    remarks.extend(mended.remarks());
    Ok((Dataset { classes: classes.names, videos, remarks }, missing))
}

/// A subset that shows nothing teaches or judges nothing.
fn refuse_without_actions(
    config: &DataConfig,
    subset: Subset,
    name: &str,
    videos: &[Video],
    mended: &Mended,
) -> Result<(), DatasetError> {
    if videos.iter().any(|video| !video.actions.is_empty()) {
        return Ok(());
    }
    let (annotations, subset_name) = (config.annotations.clone(), name.to_owned());
    if let Some(Outside { video, start, duration }) = mended.outside.first.clone()
        && mended.outside.times == mended.all
    {
        return Err(DatasetError::ActionsOutside {
            annotations,
            subset: subset_name,
            video,
            start,
            duration,
        });
    }
    Err(DatasetError::NoActions {
        annotations,
        subset: subset_name,
        named_by: NamedBy::Setting(subsets::SETTINGS[subset as usize]),
        videos: videos.len(),
    })
}

/// Gives every video its file, and tells which have more than one. Gives those that have none.
fn find_files(files: &Listing, videos: &mut [Video], remarks: &mut Vec<Finding>) -> Vec<MissingVideo> {
    remarks.extend(files.findings.iter().cloned());
    let mut spare = Vec::new();
    for video in videos.iter_mut() {
        if let Some(found) = files.find(&video.id) {
            video.path.clone_from(&found.path);
            spare.push((video.id.clone(), found));
        }
    }
    let taken: BTreeSet<&Path> =
        videos.iter().map(|video| video.path.as_path()).filter(|path| !path.as_os_str().is_empty()).collect();
    let mut told = BTreeSet::new();
    for (video, found) in spare {
        let (used, mut unused) = (found.path, found.unused);
        // What another id stands for is no second file of this one.
        unused.retain(|path| !taken.contains(path.as_path()));
        if !unused.is_empty() && told.insert(video.clone()) {
            remarks.push(Finding::SeveralFiles { video, used, unused });
        }
    }
    let missing = videos.iter().filter(|video| video.path.as_os_str().is_empty());
    let suggest = |(number, video): (usize, &Video)| MissingVideo {
        video: video.id.clone(),
        nearest: if number < SUGGESTED { files.nearest(&video.id, &taken) } else { None },
    };
    missing.enumerate().map(suggest).collect()
}

fn drop_blocked(config: &DataConfig, raw: &mut Raw) -> Result<(), DatasetError> {
    if config.blocked.is_empty() {
        return Ok(());
    }
    let blocked = Blocked::read(Path::new(&config.blocked))?;
    let before = raw.videos.len() + raw.odd.len();
    raw.videos.retain(|video| !blocked.holds(&video.id));
    raw.odd.retain(|entry| !blocked.holds(&entry.id));
    let videos = before - raw.videos.len() - raw.odd.len();
    raw.findings.push(Finding::Blocked { list: config.blocked.clone(), videos });
    Ok(())
}

/// Ids that a list takes out, whatever ending or `v_` a release gives them.
#[derive(Debug, Default)]
pub(crate) struct Blocked(BTreeSet<String>);

impl Blocked {
    /// Reads a JSON array of ids.
    pub(crate) fn read(path: &Path) -> Result<Self, DatasetError> {
        let text = text::read(path)?;
        let wrong = |message: String| DatasetError::BadBlockedList { path: path.to_owned(), message };
        let list = json::parse(&text).map_err(|error| wrong(error.to_string()))?;
        let at_place = |odd: json::Odd| wrong(format!("{}: {}", json::Place::of(&text, odd.at), odd.message));
        let ids = list.list("the list").map_err(at_place)?.iter();
        Ok(Self(ids.map(|id| id.name("an id").map(bare)).collect::<Result<_, _>>().map_err(at_place)?))
    }

    /// Whether a video is to be left out.
    pub(crate) fn holds(&self, id: &str) -> bool {
        self.0.contains(&bare(id))
    }
}

/// Names of classes and their positions.
struct Classes {
    names: Vec<String>,
    positions: BTreeMap<String, usize>,
    /// The file they come from; empty where they come from the annotations.
    list: String,
    /// The first video that shows each class, of whatever subset.
    first_videos: BTreeMap<String, String>,
}

impl Classes {
    fn of(config: &DataConfig, videos: &[RawVideo]) -> Result<Self, DatasetError> {
        let mut first_videos = BTreeMap::new();
        for video in videos {
            for action in &video.actions {
                if let RawLabel::Name(name) = &action.label {
                    first_videos.entry(name.clone()).or_insert_with(|| video.id.clone());
                }
            }
        }
        let names = if config.classes.is_empty() {
            first_videos.keys().cloned().collect()
        } else {
            let text = text::read(Path::new(&config.classes))?;
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
        Ok(Self { names, positions, list: config.classes.clone(), first_videos })
    }

    /// Classes that look like one.
    fn near(&self) -> Vec<Finding> {
        let first = |name: &String| self.first_videos.get(name).map_or("", String::as_str);
        labels::near(&self.names.iter().map(|name| (name.as_str(), first(name))).collect())
    }

    fn position(&self, video: &str, label: &RawLabel) -> Result<usize, DatasetError> {
        match label {
            RawLabel::Name(name) => {
                self.positions.get(name).copied().ok_or_else(|| self.unknown(video, name))
            }
            RawLabel::Id(id) if self.list.is_empty() => Err(DatasetError::LabelWithoutName {
                video: video.to_owned(),
                label: *id,
                reader: Reader::Configuration,
            }),
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

/// How often something was mended or dropped, and the first time.
#[derive(Clone)]
struct Count<First> {
    times: usize,
    first: Option<First>,
}

impl<First> Default for Count<First> {
    fn default() -> Self {
        Self { times: 0, first: None }
    }
}

impl<First> Count<First> {
    fn add(&mut self, happened: bool, first: impl FnOnce() -> First) {
        self.times += usize::from(happened);
        if happened {
            self.first.get_or_insert_with(first);
        }
    }

    fn extend(&mut self, other: Self) {
        self.times += other.times;
        self.first = self.first.take().or(other.first);
    }
}

/// An action that begins behind the end of its video.
#[derive(Debug, Clone, PartialEq)]
struct Outside {
    video: String,
    start: f64,
    duration: f64,
}

/// Counts of what was mended or dropped.
#[derive(Default)]
struct Mended {
    /// Actions that were looked at.
    all: usize,
    outside: Count<Outside>,
    dropped: Count<String>,
    not_numbers: Count<String>,
    clipped: Count<String>,
    without_duration: Count<String>,
    without_actions: Count<String>,
}

impl Mended {
    fn actions(
        &mut self,
        video: &RawVideo,
        duration: Option<f64>,
        classes: &Classes,
    ) -> Result<Vec<Action>, DatasetError> {
        let id = || video.id.clone();
        self.without_duration.add(duration.is_none(), id);
        let last = duration.unwrap_or(f64::INFINITY);
        let mut actions = Vec::with_capacity(video.actions.len());
        self.all += video.actions.len();
        for RawAction { label, start, end } in &video.actions {
            let label = classes.position(&video.id, label)?;
            let is_number = start.is_finite() && end.is_finite();
            let (inside_start, inside_end) = (start.max(0.0), end.min(last));
            let usable = is_number && inside_start < inside_end;
            let outside = is_number && start < end && *start >= last;
            self.not_numbers.add(!is_number, id);
            self.dropped.add(is_number && !usable, id);
            self.outside.add(outside, || Outside { video: id(), start: *start, duration: last });
            if !usable {
                continue;
            }
            self.clipped.add(*start < 0.0 || *end > last, id);
            actions.push(Action { start: Seconds(inside_start), end: Seconds(inside_end), label });
        }
        actions.sort_by(|a, b| {
            a.start.0.total_cmp(&b.start.0).then(a.end.0.total_cmp(&b.end.0)).then(a.label.cmp(&b.label))
        });
        self.without_actions.add(actions.is_empty(), id);
        Ok(actions)
    }

    fn add(&mut self, other: Self) {
        self.all += other.all;
        self.outside.extend(other.outside);
        self.dropped.extend(other.dropped);
        self.not_numbers.extend(other.not_numbers);
        self.clipped.extend(other.clipped);
        self.without_duration.extend(other.without_duration);
        self.without_actions.extend(other.without_actions);
    }

    fn remarks(self) -> Vec<Finding> {
        let many = 2 * self.outside.times >= self.all.max(1);
        let outside = self.outside.first.filter(|_| many).map(|Outside { video, start, duration }| {
            Finding::ActionsOutside { outside: self.outside.times, actions: self.all, video, start, duration }
        });
        let counts = [
            (self.dropped, Mending::Dropped),
            (self.not_numbers, Mending::NotANumber),
            (self.clipped, Mending::Clipped),
            (self.without_duration, Mending::WithoutDuration),
            (self.without_actions, Mending::WithoutActions),
        ];
        let counted = counts.into_iter().filter_map(|(Count { times, first }, what)| {
            Some(Finding::Mended { what, times, first: first? })
        });
        outside.into_iter().chain(counted).collect()
    }
}
