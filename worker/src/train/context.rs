//! What a generation is for this worker: who it is, what it learns from, whom it agrees with.

use std::sync::Arc;

use burn::tensor::Device;
use longtake_shared::config::{Resolved, RunConfig};
use longtake_shared::dataset::{self, Dataset, Subset};
use longtake_shared::ids::{LaneId, Step, VideoIndex};
use longtake_shared::lanes::Lanes;
use longtake_shared::random::Key;
use longtake_shared::units::FrameIndex;

use super::TrainError;
use super::committed::StepSettings;
use super::trainer::device;
use crate::collective::SharedCollective;
use crate::control::{Assignment, Session};
use crate::data::decode::FrameStore;
use crate::data::loader::{FrameSource, LoadedStep, SampleReader, SourceError};
use crate::data::prefetch::Prefetch;
use crate::data::video::{FrameBlock, probe};

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
    /// Samples and clips made of them.
    pub reader: Arc<SampleReader>,
    /// What ranks do together.
    pub collective: SharedCollective,
}

impl RunContext {
    /// Reads the settings and the annotations of an assignment.
    ///
    /// # Errors
    /// Settings or annotations that cannot be used: no restart mends them.
    pub fn open(
        session: Arc<Session>,
        assignment: Assignment,
        collective: SharedCollective,
    ) -> Result<Self, TrainError> {
        let config = Resolved::from_json(&assignment.config_json)?.config;
        let dataset = Arc::new(dataset::load(&config.data)?);
        let root = Key::root(config.run.seed);
        let lanes = Lanes::deal(root, config.train.lanes, &dataset.subset(Subset::Training))?;
        let frames = Arc::new(FrameStore::new(&config.data));
        let source = Videos { dataset: Arc::clone(&dataset), frames: Arc::clone(&frames) };
        let reader = SampleReader::new(
            &config.data,
            &config.memory,
            Arc::clone(&dataset),
            lanes.clone(),
            root,
            Arc::new(source),
        )?;
        Ok(Self {
            session,
            assignment,
            config: Arc::new(config),
            dataset,
            lanes: Arc::new(lanes),
            root,
            device: device(),
            frames,
            reader: Arc::new(reader),
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

    /// This worker's samples of the steps `from` to `to`, read ahead.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn read_ahead(&self, from: Step, to: Step) -> Result<Prefetch<LoadedStep>, TrainError> {
        Ok(self.reader.read_ahead(self.own_lanes().to_vec(), from..to, READ_AHEAD_THREADS)?)
    }

    /// What decodes the videos of this run, and its version: both change pixels.
    ///
    /// # Errors
    /// The first video cannot be read.
    pub fn decoder(&self) -> Result<(String, String), TrainError> {
        let video = &self.dataset.videos[0].path;
        let decoder = probe(video, self.config.data.decoder)?.decoder;
        Ok((decoder.name().to_owned(), env!("CARGO_PKG_VERSION").to_owned()))
    }
}

/// Threads that decode ahead: one keeps up with a step, and decoding competes with training for the same cores.
const READ_AHEAD_THREADS: usize = 1;

/// The videos of a data set as a source of frames.
struct Videos {
    dataset: Arc<Dataset>,
    frames: Arc<FrameStore>,
}

impl FrameSource for Videos {
    fn length(&self, video: VideoIndex) -> Result<usize, SourceError> {
        Ok(self.frames.length(&self.dataset.video(video).path)?)
    }

    fn frames(&self, video: VideoIndex, first: FrameIndex, count: usize) -> Result<FrameBlock, SourceError> {
        Ok(self.frames.frames(&self.dataset.video(video).path, first, count)?)
    }
}
