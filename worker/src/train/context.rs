//! What a generation is for this worker: who it is, what it learns from, whom it agrees with.

use std::sync::{Arc, OnceLock};

use burn::tensor::Device;
use longtake_shared::checkpoint::{ContentHash, Manifest};
use longtake_shared::config::{ConfigError, MemorySource, Resolved, RunConfig};
use longtake_shared::dataset::{self, Dataset, Subset};
use longtake_shared::ids::{LaneId, Rank, Step, VideoIndex};
use longtake_shared::lanes::Lanes;
use longtake_shared::random::Key;
use longtake_shared::units::FrameIndex;

use super::TrainError;
use super::committed::StepSettings;
use super::trainer::device;
use crate::collective::SharedCollective;
use crate::control::{Assignment, SavedStage, Session};
use crate::data::decode::FrameStore;
use crate::data::loader::{FrameSource, LoadedStep, SampleReader, SourceError};
use crate::data::prefetch::Prefetch;
use crate::data::video::{FrameBlock, probe};

/// What a worker prepares once and uses in every generation: nothing here depends on who is a member.
#[derive(Clone)]
pub struct Workplace {
    settings_json: String,
    config: Arc<RunConfig>,
    dataset: Arc<Dataset>,
    lanes: Arc<Lanes>,
    root: Key,
    device: Device,
    frames: Arc<FrameStore>,
    reader: Arc<SampleReader>,
    origin: Arc<OnceLock<Origin>>,
}

/// Where samples come from, as a checkpoint's conditions name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Fingerprint of the data set.
    pub dataset: ContentHash,
    /// What decodes its videos.
    pub decoder: String,
    /// Its version: both change pixels.
    pub decoder_version: String,
}

impl Workplace {
    /// Reads settings and annotations.
    ///
    /// # Errors
    /// Settings or annotations that cannot be used: no restart mends them.
    pub fn open(settings_json: &str) -> Result<Self, TrainError> {
        // The coordinator has validated them.
        let Resolved { config, .. } = serde_json::from_str(settings_json)
            .map_err(|error| ConfigError::Stored { message: error.to_string() })?;
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
            settings_json: settings_json.to_owned(),
            config: Arc::new(config),
            dataset,
            lanes: Arc::new(lanes),
            root,
            device: device(),
            frames,
            reader: Arc::new(reader),
            origin: Arc::default(),
        })
    }

    /// Settings of the run.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// Whether it was made for these settings.
    pub fn fits(&self, settings_json: &str) -> bool {
        self.settings_json == settings_json
    }
}

/// A generation as this worker sees it. Lives from the assignment to the worker's last word in the generation.
pub struct RunContext {
    /// The link to the agent.
    pub session: Arc<Session>,
    /// Who this worker is.
    pub assignment: Assignment,
    /// Which worker of the run this is, whatever its rank.
    pub worker: u32,
    /// The newest checkpoint.
    pub newest: Option<Manifest>,
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
    origin: Arc<OnceLock<Origin>>,
}

impl RunContext {
    /// A generation in a workplace.
    ///
    /// # Errors
    /// The assignment's manifest is invalid.
    pub fn new(
        session: Arc<Session>,
        worker: u32,
        mut assignment: Assignment,
        collective: SharedCollective,
        place: &Workplace,
    ) -> Result<Self, TrainError> {
        let newest = assignment.resume.take().map(serde_json::from_value).transpose();
        let Workplace { config, dataset, lanes, root, device, frames, reader, origin, .. } = place.clone();
        Ok(Self {
            session,
            assignment,
            worker,
            newest: newest.map_err(TrainError::Manifest)?,
            config,
            dataset,
            lanes,
            root,
            device,
            frames,
            reader,
            collective,
            origin,
        })
    }

    /// This worker's lanes.
    pub fn own_lanes(&self) -> &[LaneId] {
        &self.assignment.lanes[self.assignment.rank.index()]
    }

    /// The newest checkpoint, where it is one of the training stage.
    pub fn newest_of_training(&self) -> Option<&Manifest> {
        self.newest.as_ref().filter(|manifest| manifest.stage == SavedStage::Train)
    }

    /// Whether fresh features replace remembered ones.
    pub fn writes_back(&self) -> bool {
        self.config.memory.write_back && self.config.memory.source == MemorySource::Remembered
    }

    /// The ranks after and before this one, where each keeps copies of what the one before writes.
    pub fn neighbours(&self) -> Option<(Rank, Rank)> {
        let (rank, world) = (self.assignment.rank.index(), self.assignment.world);
        let copies = self.config.memory.replicas > 0 && world > 1 && self.writes_back();
        let at = |distance: usize| Rank(((rank + distance) % world) as u32);
        copies.then(|| (at(1), at(world - 1)))
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

    /// This worker's samples of the training stage from a step on, read ahead.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn read_ahead(&self, from: Step) -> Result<Prefetch<LoadedStep>, TrainError> {
        let steps = from..Step(self.total_steps().max(from.0));
        Ok(self.reader.read_ahead(self.own_lanes().to_vec(), steps, READ_AHEAD_THREADS)?)
    }

    /// Where samples come from.
    ///
    /// # Errors
    /// The first video cannot be read, or the annotations have no fingerprint.
    pub fn origin(&self) -> Result<Origin, TrainError> {
        if let Some(known) = self.origin.get() {
            return Ok(known.clone());
        }
        let video = &self.dataset.videos[0].path;
        let decoder = probe(video, &self.config.data)?.decoder;
        let origin = Origin {
            dataset: ContentHash::of(self.dataset.fingerprint()?.as_bytes()),
            decoder: decoder.name().to_owned(),
            decoder_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Ok(self.origin.get_or_init(|| origin).clone())
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
