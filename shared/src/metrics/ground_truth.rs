//! What happens when, as detections are judged by it.

use std::collections::BTreeMap;
use std::path::Path;

use super::MetricsError;
use crate::dataset::{Blocked, DISPUTED, Dataset, Finding, Subset, SubsetActions, read_subset};

/// Actions of one subset.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroundTruth {
    /// All videos of the subset, those without actions too.
    pub videos: Vec<String>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// All actions, in the order of the annotations.
    pub actions: Vec<Interval>,
    /// Numbers of classes by name, of other subsets too; empty where the annotations do not number them.
    pub numbers: BTreeMap<String, u32>,
    /// What reading them found that somebody should know; a data set that was loaded tells it itself.
    pub remarks: Vec<Finding>,
}

/// One action of the ground truth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Position in [`GroundTruth::videos`].
    pub video: u32,
    /// Position in [`GroundTruth::classes`].
    pub label: u32,
    /// Start in seconds.
    pub start: f64,
    /// End in seconds.
    pub end: f64,
}

impl GroundTruth {
    /// The actions of one subset of a loaded data set.
    pub fn of_dataset(dataset: &Dataset, subset: Subset) -> Self {
        let mut truth = Self { classes: dataset.classes.clone(), ..Self::default() };
        for video in dataset.videos.iter().filter(|video| video.subset == subset) {
            let index = truth.videos.len() as u32;
            truth.videos.push(video.id.clone());
            truth.actions.extend(video.actions.iter().map(|action| Interval {
                video: index,
                label: action.label as u32,
                start: action.start.0,
                end: action.end.0,
            }));
        }
        truth
    }

    /// Reads annotations of ActivityNet's layout as the official evaluator does: nothing is mended, and classes are
    /// numbered as they first appear. A folder holds THUMOS14's text files.
    ///
    /// `subset` is compared as it is written, but `validation` of text files is their `test`, as in a run; `blocked` is a
    /// JSON array of ids to leave out.
    ///
    /// # Errors
    /// Unreadable or malformed files, repeated ids, a subset that no video belongs to.
    pub fn read(path: &Path, subset: &str, blocked: Option<&Path>) -> Result<Self, MetricsError> {
        let blocked = blocked.map(Blocked::read).transpose()?.unwrap_or_default();
        let SubsetActions { videos, numbers, findings } = read_subset(path, Some(subset))?;
        let kept = videos.into_iter().filter(|(id, _)| !blocked.holds(id));
        Ok(Self { numbers, remarks: findings, ..Self::of_videos(kept) })
    }

    /// The same of every subset, for whoever looks at videos one by one.
    ///
    /// # Errors
    /// Unreadable or malformed files.
    pub fn read_all(path: &Path) -> Result<Self, MetricsError> {
        let SubsetActions { videos, numbers, findings } = read_subset(path, None)?;
        Ok(Self { numbers, remarks: findings, ..Self::of_videos(videos) })
    }

    fn of_videos(videos: impl IntoIterator<Item = (String, Vec<(String, f64, f64)>)>) -> Self {
        let mut truth = Self::default();
        let mut classes = BTreeMap::new();
        for (id, actions) in videos {
            let video = truth.videos.len() as u32;
            for (name, start, end) in actions {
                let label = *classes.entry(name.clone()).or_insert_with(|| {
                    truth.classes.push(name);
                    truth.classes.len() as u32 - 1
                });
                truth.actions.push(Interval { video, label, start, end });
            }
            truth.videos.push(id);
        }
        truth
    }

    /// Drops the test videos of THUMOS14 with wrong or no labels (decision D18). Gives how many.
    pub(super) fn drop_disputed(&mut self) -> usize {
        let kept: Vec<bool> = self.videos.iter().map(|id| !DISPUTED.contains(&id.as_str())).collect();
        let dropped = kept.iter().filter(|kept| !**kept).count();
        let before = |video: usize| kept[..video].iter().filter(|kept| **kept).count() as u32;
        if dropped > 0 {
            self.videos.retain(|id| !DISPUTED.contains(&id.as_str()));
            self.actions.retain(|action| kept[action.video as usize]);
            self.actions.iter_mut().for_each(|action| action.video = before(action.video as usize));
        }
        dropped
    }

    /// Drops actions without length, and repeated ones: same video and class, both ends within 1 ms of one that was
    /// kept (spec 60, section 7, OpenTAD). Gives how many.
    pub(super) fn clean(&mut self) -> usize {
        /// Seconds.
        const SAME: f64 = 1e-3;
        let before = self.actions.len();
        let mut kept: BTreeMap<(u32, u32), Vec<(f64, f64)>> = BTreeMap::new();
        self.actions.retain(|action| {
            let beside = kept.entry((action.video, action.label)).or_default();
            let repeated = beside
                .iter()
                .any(|(start, end)| (start - action.start).abs() <= SAME && (end - action.end).abs() <= SAME);
            let keep = action.end > action.start && !repeated;
            if keep {
                beside.push((action.start, action.end));
            }
            keep
        });
        before - self.actions.len()
    }
}
