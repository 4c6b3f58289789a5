//! What reading a data set finds: errors that refuse it, warnings about what may be meant otherwise, and remarks.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::hint::{ExitCode, Hint};
use crate::json::Place;

/// Names that a message lists before it only counts.
const NAMED: usize = 5;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is lost that was meant to count.
    Remark,
    /// Something may be meant otherwise than it was taken.
    Warning,
    /// The data set cannot be used like this.
    Error,
}

/// Something that reading a data set found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Finding {
    /// One id for two entries of the annotations.
    #[error("`{}` holds the video `{video}` twice ({first}, and {second})", annotations.display())]
    RepeatedId {
        /// The annotations.
        annotations: PathBuf,
        /// The id.
        video: String,
        /// Where its first entry begins.
        first: Place,
        /// Where its second entry begins.
        second: Place,
    },
    /// Two ids of one subset for one file.
    #[error("`{first}` and `{second}` are one file, `{}`", path.display())]
    OneFile {
        /// The first id.
        first: String,
        /// The second id.
        second: String,
        /// The file.
        path: PathBuf,
    },
    /// One video on both sides.
    #[error("{}", leak(training, validation, *by))]
    Leak {
        /// The id that is trained on.
        training: String,
        /// The id that is validated on.
        validation: String,
        /// The file that is validated on; empty where the files are not at hand.
        path: PathBuf,
        /// What both have in common.
        by: Shared,
    },
    /// More than one file for an id.
    #[error("video `{video}` has {} files: `{}` is used, not `{}`", unused.len() + 1, used.display(), paths(unused))]
    SeveralFiles {
        /// The id.
        video: String,
        /// The file that is read.
        used: PathBuf,
        /// The others.
        unused: Vec<PathBuf>,
    },
    /// Labels that look like one class.
    #[error(
        "the labels `{}` are taken as {} classes, though they differ only in case, blanks, hyphens or underscores{}",
        labels.join("`, `"), labels.len(), seen(videos)
    )]
    NearLabels {
        /// The labels.
        labels: Vec<String>,
        /// The first video of each; empty where none shows it.
        videos: Vec<String>,
    },
    /// Several spellings of a subset.
    #[error("the subset `{taken}` is taken ({}), and `{left}` is not ({}): {}", plural(*used, "video"), count(videos, "video"), named(videos))]
    MixedSubset {
        /// The spelling that counts.
        taken: String,
        /// How many videos have it.
        used: usize,
        /// The other spelling.
        left: String,
        /// The videos that have it.
        videos: Vec<String>,
    },
    /// Videos that belong to no subset.
    #[error(
        "{} {} no subset and {} left out: {}",
        count(videos, "video"),
        has(videos),
        is(videos),
        named(videos)
    )]
    WithoutSubset {
        /// The videos.
        videos: Vec<String>,
    },
    /// Videos of a subset that nothing names.
    #[error("{} of the subset `{subset}` {} left out: {}", count(videos, "video"), is(videos), named(videos))]
    OtherSubset {
        /// The subset.
        subset: String,
        /// Its videos.
        videos: Vec<String>,
    },
    /// Training and validation on the same videos, as the settings say.
    #[error(
        "training and validation are the same subset, `{subset}`: the validation shows what was learnt by heart"
    )]
    SameVideos {
        /// The subset.
        subset: String,
    },
    /// Entries that cannot be understood, of subsets that are not used.
    #[error(
        "{} of other subsets cannot be understood and {} left out: {} ({message})",
        count(videos, "video"),
        is(videos),
        named(videos)
    )]
    OddEntries {
        /// The videos.
        videos: Vec<String>,
        /// What is wrong with the first.
        message: String,
    },
    /// A text file of THUMOS14 that lies there twice with the same content.
    #[error("`{}` and `{}` have the same content: the first is read", first.display(), second.display())]
    SameTextFile {
        /// The one that is read.
        first: PathBuf,
        /// The one that is not.
        second: PathBuf,
    },
    /// Folders that cannot be listed.
    #[error("the folder `{}` cannot be listed: {reason}", folder.display())]
    UnlistedFolder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A subset that the annotations spell otherwise than the settings.
    #[error("the subset `{wanted}` is `{name}` in these annotations")]
    Respelled {
        /// As in the settings.
        wanted: String,
        /// As in the annotations.
        name: String,
    },
    /// What was mended or dropped, counted.
    #[error("{} (first: `{first}`)", counted(*what, *times))]
    Mended {
        /// What was done.
        what: Mending,
        /// How often.
        times: usize,
        /// The first video.
        first: String,
    },
    /// Many actions outside their videos: another unit, probably.
    #[error(
        "{outside} of {actions} actions lie outside their videos and are dropped, such as one of `{video}` that begins at {start:.1} of {duration:.1} s"
    )]
    ActionsOutside {
        /// How many.
        outside: usize,
        /// Of how many.
        actions: usize,
        /// The first such video.
        video: String,
        /// Where its action begins.
        start: f64,
        /// Its length in seconds.
        duration: f64,
    },
    /// Intervals that nobody could decide.
    #[error("{} labelled `Ambiguous` {} not actions", plural(*intervals, "interval"), if *intervals == 1 { "is" } else { "are" })]
    Ambiguous {
        /// How many.
        intervals: usize,
    },
    /// Videos that show nothing else.
    #[error("{} that {} only undecided intervals {} left out: {}", count(videos, "video"), if videos.len() == 1 { "shows" } else { "show" }, is(videos), named(videos))]
    OnlyAmbiguous {
        /// The videos.
        videos: Vec<String>,
    },
    /// The test videos of decision D18.
    #[error("test videos with wrong or no labels are left out: {}", named(videos))]
    Disputed {
        /// The videos.
        videos: Vec<String>,
    },
    /// Videos that a list takes out.
    #[error("{} of `{list}` {} left out", plural(*videos, "video"), if *videos == 1 { "is" } else { "are" })]
    Blocked {
        /// The list.
        list: String,
        /// How many.
        videos: usize,
    },
}

/// What two ids have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shared {
    /// The id itself.
    Id,
    /// The file, by its own name or by a link.
    File,
    /// Every byte of two files.
    Content,
}

/// What was done to an action or a video that is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mending {
    /// Actions were dropped that end before they start, or lie outside their video.
    Dropped,
    /// Actions were dropped whose start or end is not a number.
    NotANumber,
    /// Actions were clipped that reach beyond their video.
    Clipped,
    /// Videos have no annotated duration.
    WithoutDuration,
    /// Videos show no action.
    WithoutActions,
    /// Ground truth has a start or an end that is not a number: no detection can match it.
    Unmatchable,
}

impl Finding {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Self::RepeatedId { .. } | Self::OneFile { .. } | Self::Leak { .. } => Severity::Error,
            Self::SeveralFiles { .. }
            | Self::NearLabels { .. }
            | Self::MixedSubset { .. }
            | Self::WithoutSubset { .. }
            | Self::OtherSubset { .. }
            | Self::SameVideos { .. }
            | Self::OddEntries { .. }
            | Self::SameTextFile { .. }
            | Self::UnlistedFolder { .. }
            | Self::ActionsOutside { .. }
            | Self::Mended { what: Mending::NotANumber | Mending::Unmatchable, .. } => Severity::Warning,
            Self::Respelled { .. }
            | Self::Mended { .. }
            | Self::Ambiguous { .. }
            | Self::OnlyAmbiguous { .. }
            | Self::Disputed { .. }
            | Self::Blocked { .. } => Severity::Remark,
        }
    }

    /// One video on both sides.
    pub(super) fn leak(training: &str, validation: &str, path: &Path, by: Shared) -> Self {
        Self::Leak {
            training: training.to_owned(),
            validation: validation.to_owned(),
            path: path.to_owned(),
            by,
        }
    }
}

impl Hint for Finding {
    fn hint(&self) -> Option<String> {
        let advice = match self {
            Self::RepeatedId { .. } => "keep one of the entries, or merge their actions into one",
            Self::OneFile { .. } => "keep one of the ids, and merge their actions",
            Self::Leak { .. } => {
                "keep the video in one of the two subsets, or list one of its ids in `data.blocked`: \
                 a mAP over videos that were trained on says nothing"
            }
            Self::SeveralFiles { .. } => "remove or move the files that are not meant",
            Self::NearLabels { .. } => "give one class one spelling",
            Self::MixedSubset { .. } => "give one subset one spelling",
            Self::WithoutSubset { .. } => "give every video a `subset`",
            Self::OtherSubset { .. } => "correct its spelling if these videos are meant to count",
            Self::SameVideos { .. } => "set `data.validation_subset` to videos that are not trained on",
            Self::ActionsOutside { .. } => SECONDS,
            Self::UnlistedFolder { .. } => "allow it to be read if videos lie in it",
            Self::SameTextFile { .. } => "name the folder that holds one of them",
            _ => return None,
        };
        Some(advice.to_owned())
    }

    fn exit(&self) -> ExitCode {
        ExitCode::NeverRestart
    }
}

/// The advice for times in another unit.
pub(super) const SECONDS: &str = "times are in seconds from the start of the video; frame numbers must be divided by the \
                                  frame rate, and milliseconds by 1000";

fn leak(training: &str, validation: &str, by: Shared) -> String {
    match by {
        Shared::Id => format!("video `{training}` is in training and in validation"),
        Shared::File => format!("`{training}` in training and `{validation}` in validation are one file"),
        Shared::Content => {
            format!(
                "the files of `{training}` in training and `{validation}` in validation have the same content"
            )
        }
    }
}

fn counted(what: Mending, times: usize) -> String {
    let (noun, one, many) = match what {
        Mending::Dropped => (
            "action",
            "ends before it starts, or lies outside its video: dropped",
            "end before they start, or lie outside their video: dropped",
        ),
        Mending::NotANumber => (
            "action",
            "has a time that is not a number: dropped",
            "have a time that is not a number: dropped",
        ),
        Mending::Clipped => {
            ("action", "reaches beyond its video: clipped", "reach beyond their video: clipped")
        }
        Mending::WithoutDuration => ("video", "has no annotated duration", "have no annotated duration"),
        Mending::WithoutActions => ("video", "shows no action", "show no action"),
        Mending::Unmatchable => (
            "action",
            "has a time that is not a number: no detection can match it",
            "have a time that is not a number: no detection can match them",
        ),
    };
    format!("{} {}", plural(times, noun), if times == 1 { one } else { many })
}

pub(super) fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn count(videos: &[String], noun: &str) -> String {
    plural(videos.len(), noun)
}

fn is(videos: &[String]) -> &'static str {
    if videos.len() == 1 { "is" } else { "are" }
}

fn has(videos: &[String]) -> &'static str {
    if videos.len() == 1 { "has" } else { "have" }
}

/// The first names, and how many more there are.
pub(super) fn named(names: &[String]) -> impl fmt::Display {
    let first = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join("`, `")
}

/// The first video of each label that has one.
fn seen(videos: &[String]) -> String {
    let first: Vec<&String> = videos.iter().filter(|video| !video.is_empty()).collect();
    match first[..] {
        [] => String::new(),
        _ if first.iter().all(|video| *video == first[0]) => format!(" (first in `{}`)", first[0]),
        _ => format!(" (first in {})", named(&first.into_iter().cloned().collect::<Vec<_>>())),
    }
}
