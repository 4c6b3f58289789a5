//! What a generation is for this worker: who it is, what it learns from, whom it agrees with.

use std::sync::Arc;

use burn::tensor::Device;
use longtake_shared::config::RunConfig;
use longtake_shared::dataset::{self, Dataset, Subset};
use longtake_shared::ids::{LaneId, Step, VideoIndex};
use longtake_shared::lanes::Lanes;
use longtake_shared::random::Key;

use super::TrainError;
use super::committed::StepSettings;
use super::trainer::device;
use crate::collective::SharedCollective;
use crate::control::{Assignment, Session};
use crate::data::decode::FrameStore;
use crate::data::loader::Loader;
use crate::data::plan::plan_sample;

/// A generation as this worker sees it. Lives from the assignment to the worker's last word in the generation.
pub struct RunContext {
    /// The link to the agent.
    pub session: Arc<Session>,
    /// Who this worker is.
    pub assignment: Assignment,
    /// Settings of the run.
    pub config: Arc<RunConfig>,
    /// What there is to learn from.
    pub dataset: Arc<Dataset>,
    /// Who learns from what, and when.
    pub lanes: Arc<Lanes>,
    /// Root of every random draw.
    pub root: Key,
    /// Where tensors live.
    pub device: Device,
    /// Decoded frames.
    pub frames: Arc<FrameStore>,
    /// What ranks do together.
    pub collective: SharedCollective,
}

impl RunContext {
    /// Reads the settings and the annotations of an assignment.
    ///
    /// # Errors
    /// Settings or annotations that cannot be used: no restart mends them.
    pub fn open(session: Arc<Session>, assignment: Assignment, collective: SharedCollective) -> Result<Self, TrainError> {
        let config = RunConfig::from_json(&assignment.config_json)?;
        let dataset = dataset::load(&config.data)?;
        let root = Key::root(config.run.seed);
        let lanes = Lanes::deal(root, config.train.lanes, &dataset.subset(Subset::Training))?;
        let frames = FrameStore::new(&config.data);
        Ok(Self {
            session,
            assignment,
            config: Arc::new(config),
            dataset: Arc::new(dataset),
            lanes: Arc::new(lanes),
            root,
            device: device(),
            frames: Arc::new(frames),
            collective,
        })
    }

    /// This worker's lanes.
    pub fn own_lanes(&self) -> &[LaneId] {
        &self.assignment.lanes[self.assignment.rank.index()]
    }

    /// Steps of the training stage.
    pub fn total_steps(&self) -> u64 {
        let steps = self.config.train.epochs * self.lanes.steps_per_epoch();
        match self.config.train.max_steps {
            0 => steps,
            most => steps.min(most),
        }
    }

    /// How a step of this generation is done.
    pub fn step_settings(&self) -> StepSettings {
        StepSettings::new(
            Arc::clone(&self.config),
            self.root,
            self.device.clone(),
            self.collective.clone(),
            self.assignment.world,
        )
    }

    /// Frames of a video at the configured rate.
    ///
    /// # Errors
    /// The video cannot be read.
    pub fn length(&self, video: VideoIndex) -> Result<usize, TrainError> {
        Ok(self.frames.length(&self.dataset.video(video).path)?)
    }

    /// Rows that memory has of a video: half its frames, rounded up (spec 20, section 3).
    ///
    /// # Errors
    /// The video cannot be read.
    pub fn rows(&self, video: VideoIndex) -> Result<usize, TrainError> {
        Ok(self.length(video)?.div_ceil(2))
    }

    /// A loader of this worker's share of the steps `from` to `to`.
    pub fn loader(&self, from: Step, to: Step) -> Loader {
        let (config, dataset, lanes, frames) =
            (Arc::clone(&self.config), Arc::clone(&self.dataset), Arc::clone(&self.lanes), Arc::clone(&self.frames));
        let root = self.root;
        let plan = move |step: Step, lane: LaneId| {
            plan_sample(&config, &dataset, &lanes, root, step, lane, &|path| frames.length(path))
        };
        let (dataset, frames) = (Arc::clone(&self.dataset), Arc::clone(&self.frames));
        let read = move |video: VideoIndex, first, count| frames.frames(&dataset.video(video).path, first, count);
        Loader::spawn(Arc::clone(&self.config), self.own_lanes().to_vec(), from, to, Box::new(plan), Box::new(read))
    }
}
