//! What can be wrong with a data set, each with what to do about it.

use std::io;
use std::path::PathBuf;

use super::finding::{Finding, SECONDS, plural};
use crate::hint::{ExitCode, Hint};
use crate::json::Place;
use crate::text::TextError;

/// A data set that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A path that was never given.
    #[error("`{key}` is not set")]
    NotSet {
        /// The setting.
        key: &'static str,
    },
    /// A file or folder that cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that gives no text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Text that is not JSON, or has no `database`.
    #[error("`{}` is not annotations of ActivityNet's layout: {message}", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// One entry of the database that cannot be understood.
    #[error("video `{video}` of `{}` ({place}): {message}", path.display())]
    BadEntry {
        /// The file.
        path: PathBuf,
        /// The video.
        video: String,
        /// Where in the file.
        place: Place,
        /// The field and what is wrong with it.
        message: String,
    },
    /// Something that must not count as it stands: a repeated id, a video in both subsets.
    #[error("{}", sentences(findings))]
    Refused {
        /// All that was found, errors alone.
        findings: Vec<Finding>,
    },
    /// A line of a text file that is not `video start end`.
    #[error("line {line} of `{}` is not `video start end`: `{text}`", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// Two text files of one class and subset.
    #[error("`{}` and `{}` annotate the same class and subset", first.display(), second.display())]
    TwoTextFiles {
        /// The first.
        first: PathBuf,
        /// The second.
        second: PathBuf,
    },
    /// A folder where one file was expected.
    #[error("`{}` is a folder, but annotations of ActivityNet's layout are one JSON file", path.display())]
    FolderNotFile {
        /// The folder.
        path: PathBuf,
    },
    /// A folder without annotation files.
    #[error("`{}` holds no file named `<Class>_val.txt` or `<Class>_test.txt`", path.display())]
    NoTextFiles {
        /// The folder.
        path: PathBuf,
    },
    /// A list that is not a JSON array of ids.
    #[error("`{}` is not a JSON array of video ids: {message}", path.display())]
    BadBlockedList {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// A subset name that no video has.
    #[error("no video of `{annotations}` belongs to the subset `{wanted}`")]
    NoSuchSubset {
        /// The annotations.
        annotations: String,
        /// The name in the configuration.
        wanted: String,
        /// Where the name was given.
        named_by: NamedBy,
        /// The subsets there are.
        present: Vec<String>,
    },
    /// Both names mean the same videos.
    #[error("`data.train_subset` and `data.validation_subset` both mean `{subset}`")]
    SameSubset {
        /// The subset of the annotations.
        subset: String,
        /// The subsets there are.
        present: Vec<String>,
    },
    /// A subset whose videos show nothing.
    #[error("the subset `{subset}` of `{annotations}` has {} but no action", plural(*videos, "video"))]
    NoActions {
        /// The annotations.
        annotations: String,
        /// The subset.
        subset: String,
        /// Where the subset was named.
        named_by: NamedBy,
        /// Its videos.
        videos: usize,
    },
    /// A subset whose every action lies behind the end of its video: times in another unit.
    #[error(
        "all actions of the subset `{subset}` of `{annotations}` lie outside their videos, such as one of `{video}` that begins at {start:.1} of {duration:.1} s"
    )]
    ActionsOutside {
        /// The annotations.
        annotations: String,
        /// The subset.
        subset: String,
        /// The first such video.
        video: String,
        /// Where its action begins.
        start: f64,
        /// Its annotated length in seconds.
        duration: f64,
    },
    /// A class list that names a class twice.
    #[error("the class list `{}` names `{class}` twice", path.display())]
    DuplicateClass {
        /// The file.
        path: PathBuf,
        /// The class.
        class: String,
    },
    /// A label that the class list does not have.
    #[error("video `{video}` shows `{label}`, which is not in the class list `{classes}`")]
    UnknownLabel {
        /// The video.
        video: String,
        /// The label.
        label: String,
        /// The class list.
        classes: String,
        /// The class that was probably meant.
        nearest: Option<String>,
    },
    /// A label that is a number, without a list to look it up in.
    #[error("video `{video}` shows class number {label}, but there is no class list")]
    LabelWithoutName {
        /// The video.
        video: String,
        /// The number.
        label: usize,
        /// What read the annotations.
        reader: Reader,
    },
    /// Annotated videos without a file.
    #[error(
        "{} of {} {} no file in `{folder}`, such as `{}`",
        missing.len(), plural(*videos, "annotated video"), if missing.len() == 1 { "has" } else { "have" },
        missing.iter().take(10).map(|missing| missing.video.as_str()).collect::<Vec<_>>().join("`, `")
    )]
    MissingVideos {
        /// Where the videos should lie.
        folder: String,
        /// How many are annotated.
        videos: usize,
        /// All that are missing.
        missing: Vec<MissingVideo>,
    },
}

/// A video without a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingVideo {
    /// Its id.
    pub video: String,
    /// The name in the folder that looks most like it.
    pub nearest: Option<String>,
}

/// Where a user names a subset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// A setting.
    Setting(&'static str),
    /// An option of the command.
    Option(&'static str),
}

/// What reads annotations, and so what its user can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A run or a check, by a configuration.
    Configuration,
    /// A command that takes the file alone.
    Command,
}

/// The first findings, each a clause.
fn sentences(findings: &[Finding]) -> String {
    /// A terminal's height is not for one error.
    const SHOWN: usize = 3;
    let shown: Vec<String> = findings.iter().take(SHOWN).map(ToString::to_string).collect();
    match findings.len().saturating_sub(SHOWN) {
        0 => shown.join("; "),
        more => format!("{}; and {more} more", shown.join("; ")),
    }
}

impl Hint for DatasetError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Text(error) => error.hint(),
            Self::Refused { findings } => findings.first()?.hint(),
            Self::NoSuchSubset { .. } | Self::SameSubset { .. } | Self::NoActions { .. } => {
                self.subset_hint()
            }
            Self::NotSet { key } => {
                Some(format!("set `{key}` in the configuration, or with `--set {key}=...`"))
            }
            Self::FolderNotFile { .. } => {
                Some("name the file, or set `data.format = \"thumos14\"` for a folder of text files".into())
            }
            Self::NoTextFiles { .. } => {
                Some("name the folder that THUMOS14's annotations were unpacked in, or a JSON file".into())
            }
            Self::TwoTextFiles { .. } => Some("name the folder that holds one of them".into()),
            Self::ActionsOutside { .. } => Some(SECONDS.into()),
            Self::UnknownLabel { nearest: Some(nearest), .. } => {
                Some(format!("did you mean `{nearest}`? Labels are compared by name"))
            }
            Self::UnknownLabel { .. } | Self::LabelWithoutName { reader: Reader::Configuration, .. } => {
                Some("set `data.classes` to the list that these annotations were made with".into())
            }
            Self::LabelWithoutName { reader: Reader::Command, .. } => {
                Some("write the class's name as `label`: labels are compared by name".into())
            }
            Self::MissingVideos { missing, .. } => Some(missing_hint(missing)),
            Self::DuplicateClass { .. } => Some("remove one of the two lines".into()),
            Self::NotJson { .. } => {
                Some("name the JSON file of annotations, or mend it at the place that is told".into())
            }
            Self::BadEntry { .. } => Some("mend the field, or remove the video's entry".into()),
            Self::Read { .. } | Self::BadLine { .. } | Self::BadBlockedList { .. } => None,
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Read { source, .. } => ExitCode::of_named_file(source),
            Self::Text(error) => error.exit(),
            _ => ExitCode::NeverRestart,
        }
    }
}

impl DatasetError {
    fn subset_hint(&self) -> Option<String> {
        let list = |names: &[String]| format!("`{}`", names.join("`, `"));
        Some(match self {
            Self::NoSuchSubset { annotations, present, .. } if present.is_empty() => format!(
                "`{annotations}` lists no video with a `subset`: give the annotations of a data set, with a `subset` for every video"
            ),
            Self::NoSuchSubset { named_by: NamedBy::Setting(key), present, .. } => {
                format!("set `{key}` to one of {}", list(present))
            }
            Self::NoSuchSubset { named_by: NamedBy::Option(option), present, .. } => {
                format!("give `{option}` one of {}", list(present))
            }
            Self::SameSubset { present, .. } => {
                format!("name two of {} in their own spelling", list(present))
            }
            Self::NoActions { named_by: NamedBy::Setting(key), .. } => {
                format!("set `{key}` to a subset that is annotated")
            }
            Self::NoActions { named_by: NamedBy::Option(option), .. } => {
                format!("give `{option}` a subset that is annotated")
            }
            _ => return None,
        })
    }
}

/// How files are looked for, and what they may be called instead.
fn missing_hint(missing: &[MissingVideo]) -> String {
    let near: Vec<String> = missing
        .iter()
        .filter_map(|missing| {
            Some(format!(
                "{} for `{}`",
                missing.nearest.as_ref().map(|name| format!("`{name}`"))?,
                missing.video
            ))
        })
        .collect();
    let nearest = match near.len() {
        0 => String::new(),
        _ => format!("the nearest names there: {}; ", near[..near.len().min(3)].join(", ")),
    };
    format!(
        "{nearest}a file is named after its video, with or without `v_`, in this folder or below it, with the ending of a \
         video such as mp4, mkv, avi, webm, mov or ts; list ids to leave out in `data.blocked`"
    )
}
