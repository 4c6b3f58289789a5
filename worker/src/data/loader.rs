//! Plans become samples: frames are read and rendered ahead of the step that needs them.
//!
//! Takes: plans, a source of frames. Gives: one [`crate::data::loader::LaneSample`] a lane a step, in the order of steps. Next:
//! [`crate::train`]. A sample that cannot be read has weight 0 and says why; it never stops the others.

use std::ops::Range;
use std::sync::Arc;

use longtake_shared::config::RunConfig;
use longtake_shared::dataset::Dataset;
use longtake_shared::hint::Hint;
use longtake_shared::ids::{LaneId, Step, VideoIndex};
use longtake_shared::lanes::Lanes;
use longtake_shared::random::Key;
use longtake_shared::units::FrameIndex;

use super::augment::AugmentDraw;
use super::clip::{ClipError, Renderer};
use super::plan::{Planner, SamplePlan};
use super::prefetch::{Prefetch, PrefetchError, Wanted};
use super::trimmed::TrimmedPlan;
use super::video::FrameBlock;

/// Why a source has no frames.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Where frames come from, at `data.fps` and in the configured size.
pub trait FrameSource: Send + Sync {
    /// Frames of a video.
    ///
    /// # Errors
    /// The video cannot be opened.
    fn length(&self, video: VideoIndex) -> Result<usize, SourceError>;

    /// The frames `first` to `first + count`; those outside the video are left out.
    ///
    /// # Errors
    /// The video cannot be decoded.
    fn frames(&self, video: VideoIndex, first: FrameIndex, count: usize) -> Result<FrameBlock, SourceError>;
}

/// Why a clip cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The source fails.
    #[error("video `{video}` cannot be read")]
    Source {
        /// The video's id.
        video: String,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// There is not one frame.
    #[error("video `{video}` has no frame at {fps} frames a second")]
    Empty {
        /// The video's id.
        video: String,
        /// `data.fps`.
        fps: f64,
    },
    /// The frames do not fit the settings.
    #[error("video `{video}` does not become a clip")]
    Clip {
        /// The video's id.
        video: String,
        /// Why.
        #[source]
        source: ClipError,
    },
}

impl Hint for LoadError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Source { .. } | Self::Empty { .. } => {
                Some("run `longtake data check`, or list the video in the file `data.blocked`".into())
            }
            Self::Clip { source, .. } => source.hint(),
        }
    }
}

/// What a lane brings to a step.
#[derive(Debug)]
pub enum LaneSample {
    /// The lane has run out of videos in this epoch.
    Idle,
    /// A sample.
    Ready {
        /// What it shows.
        plan: Box<SamplePlan>,
        /// The sampled clips in the order of the plan, each `[3, L, crop, crop]`.
        clips: Vec<Vec<f32>>,
    },
    /// A sample that cannot be read.
    Unreadable {
        /// The video that it would show.
        video: VideoIndex,
        /// Why.
        error: LoadError,
    },
}

impl LaneSample {
    /// 1 for a sample, 0 for none.
    pub fn weight(&self) -> f32 {
        f32::from(u8::from(matches!(self, Self::Ready { .. })))
    }
}

/// One step of a worker.
#[derive(Debug)]
pub struct LoadedStep {
    /// The step.
    pub step: Step,
    /// The worker's lanes and what each brings.
    pub samples: Vec<(LaneId, LaneSample)>,
}

impl LoadedStep {
    /// Samples that could not be read.
    pub fn unreadable(&self) -> usize {
        self.samples.iter().filter(|(_, sample)| matches!(sample, LaneSample::Unreadable { .. })).count()
    }
}

/// Reads samples and clips. Any number of threads may share one.
pub struct SampleReader {
    config: RunConfig,
    dataset: Arc<Dataset>,
    lanes: Lanes,
    root: Key,
    source: Arc<dyn FrameSource>,
    renderer: Renderer,
}

impl std::fmt::Debug for SampleReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SampleReader").field("renderer", &self.renderer).finish_non_exhaustive()
    }
}

impl SampleReader {
    /// A reader of a run's samples; `root` is the root of all draws of the stage.
    ///
    /// # Errors
    /// The crop is larger than a frame.
    pub fn new(
        config: &RunConfig,
        dataset: Arc<Dataset>,
        lanes: Lanes,
        root: Key,
        source: Arc<dyn FrameSource>,
    ) -> Result<Self, ClipError> {
        let renderer = Renderer::new(&config.data)?;
        Ok(Self { config: config.clone(), dataset, lanes, root, source, renderer })
    }

    /// Starts to read the samples of `lanes` for `steps`, `data.prefetch` steps ahead.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn read_ahead(
        self: &Arc<Self>,
        lanes: Vec<LaneId>,
        steps: Range<Step>,
        threads: usize,
    ) -> Result<Prefetch<LoadedStep>, PrefetchError> {
        let reader = Arc::clone(self);
        Prefetch::spawn(steps, self.config.data.prefetch, threads, move |step, wanted| {
            reader.step(step, &lanes, wanted)
        })
    }

    /// What these lanes bring to a step.
    pub fn step(&self, step: Step, lanes: &[LaneId], wanted: &Wanted) -> LoadedStep {
        let samples = lanes.iter().map(|&lane| (lane, self.lane(lane, step, wanted))).collect();
        LoadedStep { step, samples }
    }

    fn lane(&self, lane: LaneId, step: Step, wanted: &Wanted) -> LaneSample {
        let Some(video) = self.planner().video(lane, step) else { return LaneSample::Idle };
        self.sample(lane, step, video, wanted).unwrap_or_else(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%lane, %step, cause, "{error}: its sample has weight 0");
            LaneSample::Unreadable { video, error }
        })
    }

    /// A lane's plan and its sampled clips; idle also where nobody waits for them any more.
    fn sample(
        &self,
        lane: LaneId,
        step: Step,
        video: VideoIndex,
        wanted: &Wanted,
    ) -> Result<LaneSample, LoadError> {
        let planner = self.planner();
        let total = self.length(video)?;
        let Some(plan) = planner.sample(lane, step, total) else { return Ok(LaneSample::Idle) };
        let mut clips = Vec::with_capacity(plan.sampled.len());
        for &clip in &plan.sampled {
            if !wanted.is_wanted() {
                return Ok(LaneSample::Idle);
            }
            clips.push(self.clip(&plan, clip)?);
        }
        Ok(LaneSample::Ready { plan: Box::new(plan), clips })
    }

    /// What plans are made of.
    pub fn planner(&self) -> Planner<'_> {
        Planner { config: &self.config, dataset: &self.dataset, lanes: &self.lanes, root: self.root }
    }

    /// Frames of a video at `data.fps`.
    ///
    /// # Errors
    /// The video cannot be opened, or has no frame.
    pub fn length(&self, video: VideoIndex) -> Result<usize, LoadError> {
        match self.source.length(video) {
            Ok(0) => Err(LoadError::Empty { video: self.id(video), fps: self.config.data.fps }),
            Ok(total) => Ok(total),
            Err(source) => Err(LoadError::Source { video: self.id(video), source }),
        }
    }

    /// One clip of a sample, `[3, L, crop, crop]`: also one that is not sampled, for rows that the memory lacks.
    ///
    /// # Errors
    /// The frames cannot be read.
    pub fn clip(&self, plan: &SamplePlan, clip: usize) -> Result<Vec<f32>, LoadError> {
        self.render(plan.video, plan.first_frame(clip), plan.clip_frames, &plan.augment)
    }

    /// A clip for the classifier, `[3, L, crop, crop]`.
    ///
    /// # Errors
    /// The frames cannot be read.
    pub fn trimmed(&self, plan: &TrimmedPlan) -> Result<Vec<f32>, LoadError> {
        self.render(plan.video, plan.start, plan.frames, &plan.augment)
    }

    /// Any frames of a video as a clip: centred and unchanged ([`AugmentDraw::centred`]) for evaluation and extraction.
    ///
    /// # Errors
    /// The frames cannot be read.
    pub fn render(
        &self,
        video: VideoIndex,
        first: FrameIndex,
        frames: usize,
        draw: &AugmentDraw,
    ) -> Result<Vec<f32>, LoadError> {
        let block = self
            .source
            .frames(video, first, frames)
            .map_err(|source| LoadError::Source { video: self.id(video), source })?;
        self.renderer
            .render(&block, first, frames, draw)
            .map_err(|source| LoadError::Clip { video: self.id(video), source })
    }

    fn id(&self, video: VideoIndex) -> String {
        self.dataset.video(video).id.clone()
    }
}

#[cfg(test)]
mod tests;
