//! Which window of which video a lane sees in a step, where its clips lie, and which of them are sampled.
//!
//! Takes: settings, annotations, lanes, a step. Gives: a [`crate::data::plan::SamplePlan`], the same on every machine and in every run.
//! Next: [`crate::data::loader`] reads what it names, the memory reads the rows of the other clips.

use longtake_shared::config::RunConfig;
use longtake_shared::dataset::Dataset;
use longtake_shared::ids::{LaneId, Step, VideoIndex};
use longtake_shared::lanes::Lanes;
use longtake_shared::random::Key;
use longtake_shared::units::FrameIndex;

use super::augment::AugmentDraw;
use super::draw::below;
use crate::model::memory::choose_clips;
use crate::model::truth::{LabelledSegment, Truth};

/// One sample of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplePlan {
    /// The step.
    pub step: Step,
    /// The lane.
    pub lane: LaneId,
    /// Under which everything of this sample is drawn.
    pub key: Key,
    /// The video.
    pub video: VideoIndex,
    /// First frame of the window.
    pub start: FrameIndex,
    /// Frames by which the first clip begins before the window (spec 20, section 6); 0 without `data.clip_shift`.
    pub shift: usize,
    /// Clips that cover the window: one more than without a shift.
    pub clips: usize,
    /// Frames of a clip.
    pub clip_frames: usize,
    /// Clips that train the backbone, ascending.
    pub sampled: Vec<usize>,
    /// What is done to the frames.
    pub augment: AugmentDraw,
    /// What is annotated in the window.
    pub truth: Truth,
    /// Frames of the whole video at `truth.fps`.
    pub frames_total: usize,
    /// Frames a row of features (the backbone's stride).
    pub frames_per_row: usize,
}

impl SamplePlan {
    /// First frame of a clip; negative before the video's start.
    pub fn first_frame(&self, clip: usize) -> FrameIndex {
        FrameIndex(self.start.0 - self.shift as i64 + (clip * self.clip_frames) as i64)
    }

    /// Row of the video's features at which a clip's begin. Both the window's start and the shift are halved downwards,
    /// so that rows are read where they were written (spec 20, section 6, step 4).
    pub fn first_row(&self, clip: usize) -> i64 {
        let start = self.start.0.div_euclid(self.frames_per_row as i64);
        start - self.crop_row() as i64 + (clip * self.rows_per_clip()) as i64
    }

    /// Rows of the features of a clip.
    pub fn rows_per_clip(&self) -> usize {
        self.clip_frames / self.frames_per_row
    }

    /// Row of the clips' features at which the window's begin.
    pub fn crop_row(&self) -> usize {
        self.shift / self.frames_per_row
    }

    /// Rows of the video's features.
    pub fn rows_total(&self) -> usize {
        self.frames_total.div_ceil(self.frames_per_row)
    }
}

/// What plans are made of; nothing here changes from step to step.
#[derive(Debug, Clone, Copy)]
pub struct Planner<'a> {
    /// Windows, clips, augmentation, sampler.
    pub config: &'a RunConfig,
    /// Videos and their actions.
    pub dataset: &'a Dataset,
    /// Which lane has which video.
    pub lanes: &'a Lanes,
    /// Root of all draws of the stage.
    pub root: Key,
}

/// The key of one lane's sample in a step: drop path, augmentation, window and sampled clips are drawn below it.
pub fn sample_key(root: Key, step: Step, lane: LaneId) -> Key {
    root.child("train", step.0).child("lane", u64::from(lane.0))
}

impl Planner<'_> {
    /// The video of a lane in a step; nothing where the lane is idle.
    pub fn video(&self, lane: LaneId, step: Step) -> Option<VideoIndex> {
        let (epoch, position) = self.lanes.position(step);
        self.lanes.video(lane, epoch, position)
    }

    /// The sample of a lane in a step, whose video has `sampled_length` frames at `data.fps`; nothing where the lane is
    /// idle.
    pub fn sample(&self, lane: LaneId, step: Step, sampled_length: usize) -> Option<SamplePlan> {
        let video = self.video(lane, step)?;
        let key = sample_key(self.root, step, lane);
        let start = self.start(key, sampled_length);
        let (config, data) = (self.config, &self.config.data);
        let clip_frames = data.clip_frames;
        let (shift, extra) =
            if data.clip_shift { (below(&mut key.child("shift", 0).rng(), clip_frames), 1) } else { (0, 0) };
        let clips = data.clips() + extra;
        Some(SamplePlan {
            step,
            lane,
            key,
            video,
            start: FrameIndex(start as i64),
            shift,
            clips,
            clip_frames,
            sampled: choose_clips(&config.memory, data.clips(), clips, key).sampled,
            augment: AugmentDraw::draw(key, &data.augment, data),
            truth: self.truth(video, start, sampled_length),
            frames_total: sampled_length,
            frames_per_row: config.geometry().stride,
        })
    }

    /// First frame of the window: every window that lies within the video is equally likely (spec 40, section 8, step 1).
    fn start(&self, key: Key, total: usize) -> usize {
        let data = &self.config.data;
        let last = total.saturating_sub(data.window_frames);
        let grid = if data.even_start { self.config.geometry().stride } else { 1 };
        below(&mut key.child("start", 0).rng(), last / grid + 1) * grid
    }

    /// Actions of which more than `data.min_overlap` lies in the window, or that fill more than that of it.
    fn truth(&self, video: VideoIndex, start: usize, total: usize) -> Truth {
        let data = &self.config.data;
        let fps = data.fps;
        let length = data.window_frames.min(total) as f64;
        let (window_start, window_end) = (start as f64, start as f64 + length);
        let actions = (self.dataset.video(video).actions.iter())
            .filter_map(|action| {
                let (from, to) = (action.start.0 * fps, action.end.0 * fps);
                let (clipped_from, clipped_to) = (from.max(window_start), to.min(window_end));
                let overlap = clipped_to - clipped_from;
                let kept = overlap > 0.0 && (overlap / (to - from)).max(overlap / length) > data.min_overlap;
                let segment =
                    [clipped_from - window_start, clipped_to - window_start].map(|frame| frame as f32);
                kept.then_some(LabelledSegment { segment, label: action.label })
            })
            .collect();
        Truth { video, fps, actions }
    }
}

#[cfg(test)]
mod tests;
