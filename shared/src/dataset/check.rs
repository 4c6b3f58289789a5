//! What is wrong with a data set, all at once: `longtake data check`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::assemble::assemble;
use super::files::Listing;
use super::{Dataset, DatasetError, Finding, Severity, Subset, Video};
use crate::config::DataConfig;

/// A difference between annotated and real length that is reported: this share of the length, but at least one second.
const DURATION_TOLERANCE: f64 = 0.02;

/// Which code decodes a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecoderKind {
    /// OpenH264, compiled in.
    Embedded,
    /// The program `ffmpeg`.
    Ffmpeg,
}

impl DecoderKind {
    /// As settings and logs write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Ffmpeg => "ffmpeg",
        }
    }
}

/// What a decoder says about a file.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbedVideo {
    /// Frames in the file.
    pub frames: usize,
    /// Length in seconds.
    pub duration: f64,
    /// Width of the picture in pixels.
    pub width: usize,
    /// Height of the picture in pixels.
    pub height: usize,
    /// What decodes it.
    pub decoder: DecoderKind,
    /// Why that one.
    pub reason: String,
}

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// What is wrong and where in the file: it completes the sentence "video `x` ...".
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What decoding some of a file found.
pub type Examined = Result<ProbedVideo, Unreadable>;

/// What `longtake data check` found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Training, then validation.
    pub subsets: Vec<SubsetCount>,
    /// In the order of labels.
    pub classes: Vec<ClassCount>,
    /// What reading the annotations dropped or renamed.
    pub remarks: Vec<Finding>,
    /// What somebody should look at.
    pub problems: Vec<Problem>,
}

/// One subset in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SubsetCount {
    /// Which.
    pub subset: Subset,
    /// Its videos.
    pub videos: usize,
    /// Their actions.
    pub actions: usize,
    /// Their length in seconds, as probed where a file could be read, else as annotated.
    pub seconds: f64,
}

/// One class in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassCount {
    /// Its name.
    pub name: String,
    /// Actions in training videos.
    pub training: usize,
    /// Actions in validation videos.
    pub validation: usize,
}

/// Something that somebody should look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Problem {
    /// No file.
    #[error("video `{video}` has no file{}", nearest.as_ref().map_or_else(String::new, |name| format!("; the nearest name is `{name}`")))]
    Missing {
        /// The video.
        video: String,
        /// The file whose name looks most like it.
        nearest: Option<String>,
    },
    /// A file that the decoder refuses.
    #[error("video `{video}` {} (`{}`)", why.reason, path.display())]
    Unreadable {
        /// The video.
        video: String,
        /// Its file.
        path: PathBuf,
        /// What the decoder says.
        #[serde(flatten)]
        why: Unreadable,
    },
    /// A file without frames.
    #[error("video `{video}` has no frames (`{}`)", path.display())]
    NoFrames {
        /// The video.
        video: String,
        /// Its file.
        path: PathBuf,
    },
    /// An action that the file does not reach.
    #[error("video `{video}` is {duration:.2} s long, but an action ends at {end:.2} s")]
    BeyondEnd {
        /// The video.
        video: String,
        /// The last action's end.
        end: f64,
        /// The file's length.
        duration: f64,
    },
    /// A file of another length than annotated.
    #[error("video `{video}` is {duration:.2} s long, but is annotated as {annotated:.2} s")]
    OtherDuration {
        /// The video.
        video: String,
        /// As annotated.
        annotated: f64,
        /// The file's length.
        duration: f64,
    },
    /// A class that cannot be learnt.
    #[error("no training video shows `{class}`")]
    NeverTrained {
        /// The class.
        class: String,
    },
    /// A class that cannot be judged.
    #[error("no validation video shows `{class}`")]
    NeverValidated {
        /// The class.
        class: String,
    },
    /// What must not count as it stands: a repeated id, a video on both sides.
    #[error("{finding}")]
    Annotations {
        /// What was found.
        finding: Finding,
    },
}

/// Reads annotations and has the files of all videos examined: `examine` gives an answer a video, in their order.
///
/// # Errors
/// What [`super::load`] refuses, except missing files, which are problems of the report.
pub fn check(
    config: &DataConfig,
    examine: &dyn Fn(&[&Video]) -> Vec<Examined>,
) -> Result<CheckReport, DatasetError> {
    let (mut dataset, missing) = assemble(config, Some(&Listing::of(&config.videos)?))?;
    let nearest: BTreeMap<String, Option<String>> =
        missing.into_iter().map(|missing| (missing.video, missing.nearest)).collect();
    let (errors, remarks): (Vec<Finding>, Vec<Finding>) = std::mem::take(&mut dataset.remarks)
        .into_iter()
        .partition(|finding| finding.severity() == Severity::Error);
    let mut problems: Vec<Problem> =
        errors.into_iter().map(|finding| Problem::Annotations { finding }).collect();
    let mut seconds = [0.0; 2];
    let has_file = |video: &&Video| !video.path.as_os_str().is_empty();
    let with_file: Vec<&Video> = dataset.videos.iter().filter(has_file).collect();
    let mut examined = examine(&with_file).into_iter();
    for video in &dataset.videos {
        let (found, length) = match nearest.get(&video.id) {
            Some(nearest) => {
                let missing = Problem::Missing { video: video.id.clone(), nearest: nearest.clone() };
                (vec![missing], video.duration.0)
            }
            None => problems_of_file(video, examined.next()),
        };
        problems.extend(found);
        seconds[video.subset as usize] += length;
    }
    let classes = count_classes(&dataset);
    for class in &classes {
        if class.training == 0 {
            problems.push(Problem::NeverTrained { class: class.name.clone() });
        }
        if class.validation == 0 {
            problems.push(Problem::NeverValidated { class: class.name.clone() });
        }
    }
    let subsets = [Subset::Training, Subset::Validation].map(|subset| {
        let videos = dataset.videos.iter().filter(|video| video.subset == subset);
        SubsetCount {
            subset,
            videos: videos.clone().count(),
            actions: videos.map(|video| video.actions.len()).sum(),
            seconds: seconds[subset as usize],
        }
    });
    Ok(CheckReport { subsets: subsets.to_vec(), classes, remarks, problems })
}

/// The problems of one file, and its length in seconds.
fn problems_of_file(video: &Video, examined: Option<Examined>) -> (Vec<Problem>, f64) {
    let (id, path) = (video.id.clone(), video.path.clone());
    let annotated = video.duration.0;
    match examined {
        None => (Vec::new(), annotated),
        Some(Err(why)) => (vec![Problem::Unreadable { video: id, path, why }], annotated),
        Some(Ok(probed)) if probed.frames == 0 => (vec![Problem::NoFrames { video: id, path }], annotated),
        Some(Ok(probed)) => (length_problems(video, probed.duration), probed.duration),
    }
}

impl Problem {
    /// What to do about it, where the file says so.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unreadable { why, .. } => why.hint.as_deref(),
            _ => None,
        }
    }
}

/// Where a file of `duration` seconds contradicts its annotations; an action that it does not reach comes first.
pub fn length_problems(video: &Video, duration: f64) -> Vec<Problem> {
    let (id, annotated) = (&video.id, video.duration.0);
    let tolerance = (duration * DURATION_TOLERANCE).max(1.0);
    let mut problems = Vec::new();
    let end = video.actions.iter().map(|action| action.end.0).fold(0.0, f64::max);
    if end > duration + tolerance {
        problems.push(Problem::BeyondEnd { video: id.clone(), end, duration });
    }
    if annotated > 0.0 && (annotated - duration).abs() > tolerance {
        problems.push(Problem::OtherDuration { video: id.clone(), annotated, duration });
    }
    problems
}

fn count_classes(dataset: &Dataset) -> Vec<ClassCount> {
    let mut classes: Vec<ClassCount> = dataset
        .classes
        .iter()
        .map(|name| ClassCount { name: name.clone(), training: 0, validation: 0 })
        .collect();
    for video in &dataset.videos {
        for action in &video.actions {
            match video.subset {
                Subset::Training => classes[action.label].training += 1,
                Subset::Validation => classes[action.label].validation += 1,
            }
        }
    }
    classes
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for count in &self.subsets {
            let name = count.subset.name();
            let (videos, actions, minutes) = (count.videos, count.actions, count.seconds / 60.0);
            writeln!(text, "{name:<10}  {videos:>6} videos  {actions:>7} actions  {minutes:>8.1} min")?;
        }
        let width = self.classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max(5);
        writeln!(text, "\n{:<width$}  {:>8}  {:>10}", "class", "training", "validation")?;
        for class in &self.classes {
            writeln!(text, "{:<width$}  {:>8}  {:>10}", class.name, class.training, class.validation)?;
        }
        for remark in &self.remarks {
            writeln!(text, "remark: {remark}")?;
        }
        for (index, problem) in self.problems.iter().enumerate() {
            writeln!(text, "problem: {problem}")?;
            // Neighbours with the same hint share it.
            let next = self.problems.get(index + 1).and_then(Problem::hint);
            if let Some(hint) = problem.hint().filter(|hint| Some(*hint) != next) {
                writeln!(text, "hint: {hint}")?;
            }
        }
        f.write_str(text.trim_end())
    }
}
