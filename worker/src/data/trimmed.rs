//! Trimmed clips for training the backbone as a classifier: most show an action, some show none.
//!
//! A batch is a function of the seed and the step, so that it is the same for any number of workers.

use longtake_shared::config::{DataConfig, PretrainConfig};
use longtake_shared::dataset::Dataset;
use longtake_shared::ids::{Step, VideoIndex};
use longtake_shared::random::Key;
use longtake_shared::units::FrameIndex;

use super::augment::AugmentDraw;
use super::draw::{below, chance};

/// One clip of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct TrimmedPlan {
    /// Under which everything of this clip is drawn.
    pub key: Key,
    /// The video.
    pub video: VideoIndex,
    /// First frame of the clip.
    pub start: FrameIndex,
    /// Frames of the clip.
    pub frames: usize,
    /// Class of the action, or the number of classes where there is none.
    pub label: usize,
    /// What is done to the frames.
    pub augment: AugmentDraw,
}

/// A part of a video that a clip may begin in: frames `first` to `first + starts` - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    video: VideoIndex,
    first: usize,
    starts: usize,
    label: usize,
}

/// Where trimmed clips may begin.
#[derive(Debug, Clone)]
pub struct TrimmedPlanner {
    data: DataConfig,
    pretrain: PretrainConfig,
    root: Key,
    actions: Vec<Span>,
    background: Vec<Span>,
}

impl TrimmedPlanner {
    /// A planner over `videos`, each with its frames at `data.fps` (0: left out).
    pub fn new(
        data: &DataConfig,
        pretrain: &PretrainConfig,
        dataset: &Dataset,
        videos: &[(VideoIndex, usize)],
        root: Key,
    ) -> Self {
        let (mut actions, mut background) = (Vec::new(), Vec::new());
        for &(video, total) in videos.iter().filter(|(_, total)| *total > 0) {
            let spans = (dataset.video(video).actions.iter()).map(|action| {
                let frames = |seconds: f64| ((seconds * data.fps).round().max(0.0) as usize).min(total);
                (frames(action.start.0), frames(action.end.0), action.label)
            });
            let mut free = 0;
            for (from, to, label) in spans.chain([(total, total, dataset.classes.len())]) {
                if to > from {
                    actions.push(action_span(video, total, (from, to), pretrain.clip_frames, label));
                }
                if from >= free + pretrain.clip_frames {
                    let starts = from - free - pretrain.clip_frames + 1;
                    background.push(Span { video, first: free, starts, label: dataset.classes.len() });
                }
                free = free.max(to);
            }
        }
        Self { data: data.clone(), pretrain: pretrain.clone(), root, actions, background }
    }

    /// Clip `index` of a step's batch; nothing where no video has anything to show.
    ///
    /// Actions are equally likely, and so are the frames at which background may begin. Where one of the two kinds does
    /// not exist, the other stands in.
    pub fn clip(&self, step: Step, index: usize) -> Option<TrimmedPlan> {
        let key = self.root.child("pretrain", step.0).child("clip", index as u64);
        let mut rng = key.child("span", 0).rng();
        let background = chance(&mut rng, self.pretrain.background) || self.actions.is_empty();
        let span = if background && !self.background.is_empty() {
            let mut place = below(&mut rng, self.background.iter().map(|span| span.starts).sum());
            self.background.iter().find_map(|span| {
                let here = place < span.starts;
                let found = Span { first: span.first + place, starts: 1, ..*span };
                place = place.saturating_sub(span.starts);
                here.then_some(found)
            })
        } else {
            self.actions.get(below(&mut rng, self.actions.len())).copied()
        }?;
        Some(TrimmedPlan {
            key,
            video: span.video,
            start: FrameIndex((span.first + below(&mut rng, span.starts)) as i64),
            frames: self.pretrain.clip_frames,
            label: span.label,
            augment: AugmentDraw::draw(key, &self.data.augment, &self.data),
        })
    }
}

/// Starts at which the clip lies within the action, or, where the action is shorter, the action within the clip.
fn action_span(
    video: VideoIndex,
    total: usize,
    (from, to): (usize, usize),
    clip: usize,
    label: usize,
) -> Span {
    let (first, last) = if to - from >= clip { (from, to - clip) } else { (to.saturating_sub(clip), from) };
    let last = last.min(total.saturating_sub(clip));
    let first = first.min(last);
    Span { video, first, starts: last - first + 1, label }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use longtake_shared::dataset::{Action, Subset, Video};
    use longtake_shared::units::Seconds;

    use super::*;

    fn planner(background: f64, videos: &[(usize, &[(f64, f64)])]) -> TrimmedPlanner {
        let dataset = Dataset {
            classes: vec!["a".into(), "b".into()],
            videos: (videos.iter())
                .map(|(total, actions)| Video {
                    id: "v".into(),
                    subset: Subset::Training,
                    path: "v.mp4".into(),
                    duration: Seconds(*total as f64 / 10.0),
                    actions: (actions.iter().enumerate())
                        .map(|(label, &(start, end))| Action {
                            start: Seconds(start),
                            end: Seconds(end),
                            label,
                        })
                        .collect(),
                })
                .collect(),
            remarks: vec![],
        };
        let data = DataConfig { fps: 10.0, ..DataConfig::default() };
        let pretrain = PretrainConfig { clip_frames: 16, background, ..PretrainConfig::default() };
        let lengths: Vec<_> = (0u32..).map(VideoIndex).zip(videos.iter().map(|(total, _)| *total)).collect();
        TrimmedPlanner::new(&data, &pretrain, &dataset, &lengths, Key::root(2))
    }

    fn clips(planner: &TrimmedPlanner) -> Vec<TrimmedPlan> {
        (0..500).filter_map(|index| planner.clip(Step(index / 8), index as usize % 8)).collect()
    }

    #[test]
    fn clips_lie_within_their_action_or_around_it() {
        // Frames 20 to 50 (longer than a clip) and 60 to 70 (shorter), in a video of 80.
        let clips = clips(&planner(0.0, &[(80, &[(2.0, 5.0), (6.0, 7.0)])]));
        let starts = |label| -> BTreeSet<i64> {
            clips.iter().filter(|clip| clip.label == label).map(|clip| clip.start.0).collect()
        };
        assert_eq!(starts(0), (20..=34).collect());
        assert_eq!(starts(1), (54..=60).collect());
        assert_eq!(starts(2), BTreeSet::new());
        assert!(clips.iter().filter(|clip| clip.label == 0).count().abs_diff(250) < 60);
    }

    #[test]
    fn background_shows_no_action() {
        let all = clips(&planner(0.2, &[(80, &[(2.0, 5.0), (6.0, 7.0)]), (16, &[]), (15, &[])]));
        let background: Vec<_> = all.iter().filter(|clip| clip.label == 2).collect();
        assert!(background.len().abs_diff(100) < 35, "{}", background.len());
        let places: BTreeSet<(u32, i64)> =
            background.iter().map(|clip| (clip.video.0, clip.start.0)).collect();
        assert_eq!(places, (0..=4).map(|start| (0, start)).chain([(1, 0)]).collect());
    }

    #[test]
    fn what_does_not_exist_is_replaced_and_nothing_is_nothing() {
        assert!(clips(&planner(1.0, &[(30, &[(0.0, 3.0)])])).iter().all(|clip| clip.label == 0));
        assert!(clips(&planner(0.0, &[(30, &[])])).iter().all(|clip| clip.label == 2));
        assert_eq!(planner(0.5, &[(0, &[(0.0, 3.0)])]).clip(Step(0), 0), None);
        let short = clips(&planner(0.0, &[(10, &[(0.2, 0.5)])]));
        assert!(
            short.iter().all(|clip| clip.start.0 == 0),
            "a video shorter than a clip is shown from its start"
        );
    }

    #[test]
    fn a_clip_depends_on_step_and_index_alone() {
        let planner = planner(0.2, &[(800, &[(2.0, 50.0)])]);
        assert_eq!(planner.clip(Step(3), 5), planner.clip(Step(3), 5));
        assert_ne!(planner.clip(Step(3), 5), planner.clip(Step(3), 6));
        assert_ne!(planner.clip(Step(3), 5), planner.clip(Step(4), 5));
    }
}
