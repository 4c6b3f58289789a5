//! What can be wrong with a data set, each with what to do about it.

use std::io;
use std::path::PathBuf;

use crate::hint::Hint;

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
    /// Text that is not JSON, or has no `database`.
    #[error("`{}` is not annotations of ActivityNet's layout: {message}", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// One entry of the database that cannot be understood.
    #[error("video `{video}` of `{}`: {message}", path.display())]
    BadEntry {
        /// The file.
        path: PathBuf,
        /// The video.
        video: String,
        /// The field and what is wrong with it.
        message: String,
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
        /// The setting.
        key: &'static str,
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
    #[error("the subset `{subset}` of `{annotations}` has {videos} videos but no action")]
    NoActions {
        /// The annotations.
        annotations: String,
        /// The subset.
        subset: String,
        /// Its videos.
        videos: usize,
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
    },
    /// Annotated videos without a file.
    #[error("{count} of {videos} annotated videos have no file in `{folder}`, such as `{}`", first.join("`, `"))]
    MissingVideos {
        /// Where the videos should lie.
        folder: String,
        /// How many are missing.
        count: usize,
        /// How many are annotated.
        videos: usize,
        /// The first ten.
        first: Vec<String>,
    },
}

impl Hint for DatasetError {
    fn hint(&self) -> Option<String> {
        let list = |names: &[String]| format!("`{}`", names.join("`, `"));
        match self {
            Self::NotSet { key } => {
                Some(format!("set `{key}` in the configuration, or with `--set {key}=...`"))
            }
            Self::FolderNotFile { .. } => {
                Some("name the file, or set `data.format = \"thumos14\"` for a folder of text files".into())
            }
            Self::NoTextFiles { .. } => {
                Some("name the folder that holds `val` and `test`, or a JSON file".into())
            }
            Self::NoSuchSubset { annotations, present, .. } if present.is_empty() => {
                Some(format!("`{annotations}` lists no video at all: give the annotations of a data set"))
            }
            Self::NoSuchSubset { key, present, .. } => {
                Some(format!("set `{key}` to one of {}", list(present)))
            }
            Self::SameSubset { present, .. } => {
                Some(format!("name two of {} in their own spelling", list(present)))
            }
            Self::NoActions { .. } => Some("choose a subset that is annotated".into()),
            Self::UnknownLabel { nearest: Some(nearest), .. } => {
                Some(format!("did you mean `{nearest}`? Labels are compared by name"))
            }
            Self::UnknownLabel { .. } | Self::LabelWithoutName { .. } => {
                Some("set `data.classes` to the list that these annotations were made with".into())
            }
            Self::MissingVideos { .. } => Some(
                "files are looked for as `<id>` and `v_<id>` with mp4, mkv, avi, webm or mov; \
                 list ids to leave out in `data.blocked`"
                    .into(),
            ),
            Self::DuplicateClass { .. } => Some("remove one of the two lines".into()),
            Self::BadEntry { .. }
            | Self::Read { .. }
            | Self::NotJson { .. }
            | Self::BadLine { .. }
            | Self::BadBlockedList { .. } => None,
        }
    }
}
