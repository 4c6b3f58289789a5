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

use crate::collective::SharedCollective;
use crate::control::{Assignment, SavedStage, Session};
use crate::data::decode::FrameStore;
use crate::data::loader::{FrameSource, LoadedStep, SampleReader, SourceError};
use crate::data::prefetch::Prefetch;
use crate::data::video::{FrameBlock, probe};
use crate::train::TrainError;
use crate::train::run::damage::{Cause, Damage, WITHOUT_SAMPLES};
use crate::train::stages::trainer::device;
use crate::train::step::step_runner::StepRunner;

/// What a worker prepares once and uses in every generation: nothing here depends on who is a member.
#[derive(Clone)]
pub struct Workplace {
    settings_json: String,
    /// Settings of the run.
    pub config: Arc<RunConfig>,
    /// Videos and their annotations.
    pub dataset: Arc<Dataset>,
    /// Which lane has which video.
    pub lanes: Arc<Lanes>,
    /// Root of every random draw.
    pub root: Key,
    /// Where tensors live.
    pub device: Device,
    /// Decoded frames.
    pub frames: Arc<FrameStore>,
    /// Samples, and the clips that are made of them.
    pub reader: Arc<SampleReader>,
    /// Videos that cannot be read.
    pub damage: Arc<Damage>,
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
        let damage = Arc::<Damage>::default();
        let source = Videos {
            dataset: Arc::clone(&dataset),
            frames: Arc::clone(&frames),
            damage: Arc::clone(&damage),
        };
        let reader = SampleReader::new(&config, Arc::clone(&dataset), lanes.clone(), root, Arc::new(source))?;
        Ok(Self {
            settings_json: settings_json.to_owned(),
            config: Arc::new(config),
            dataset,
            lanes: Arc::new(lanes),
            root,
            device: device(),
            frames,
            reader: Arc::new(reader),
            damage,
            origin: Arc::default(),
        })
    }

    /// Whether it was made for these settings.
    pub fn fits(&self, settings_json: &str) -> bool {
        self.settings_json == settings_json
    }

    /// Whether fresh features replace remembered ones.
    pub fn writes_back(&self) -> bool {
        self.config.memory.write_back && self.config.memory.source == MemorySource::Remembered
    }

    /// Steps of the training stage.
    pub fn total_steps(&self) -> u64 {
        let steps = self.config.train.epochs * self.lanes.steps_per_epoch();
        match self.config.train.max_steps {
            0 => steps,
            most => steps.min(most),
        }
    }

    /// Where samples come from.
    ///
    /// # Errors
    /// No video can be opened, or the annotations have no fingerprint.
    pub fn origin(&self) -> Result<Origin, TrainError> {
        if let Some(known) = self.origin.get() {
            return Ok(known.clone());
        }
        let mut opened = self.dataset.videos.iter().map(|video| probe(&video.path, &self.config.data));
        // The first that can be opened: a damaged one has no decoder.
        let decoder = match opened.find_map(Result::ok) {
            Some(info) => info.decoder,
            None => probe(&self.dataset.videos[0].path, &self.config.data)?.decoder,
        };
        let origin = Origin {
            dataset: ContentHash::of(self.dataset.fingerprint()?.as_bytes()),
            decoder: decoder.name().to_owned(),
            decoder_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Ok(self.origin.get_or_init(|| origin).clone())
    }
}

/// A generation as this worker sees it. Lives from the assignment to the worker's last message in the generation.
pub struct RunContext {
    /// Settings, data and devices, which do not depend on the generation.
    pub place: Workplace,
    /// The link to the agent.
    pub session: Arc<Session>,
    /// Rank, lanes and peers of this worker.
    pub assignment: Assignment,
    /// Index of this worker in the run, whatever its rank.
    pub worker: u32,
    /// The newest checkpoint.
    pub newest: Option<Manifest>,
    /// The collective of the generation's ranks.
    pub collective: SharedCollective,
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
        let newest = newest.map_err(TrainError::Manifest)?;
        place.damage.begin_generation();
        Ok(Self { place: place.clone(), session, assignment, worker, newest, collective })
    }

    /// This worker's lanes.
    pub fn own_lanes(&self) -> &[LaneId] {
        &self.assignment.lanes[self.assignment.rank.index()]
    }

    /// The newest checkpoint, where it is one of the training stage.
    pub fn newest_of_training(&self) -> Option<&Manifest> {
        self.newest.as_ref().filter(|manifest| manifest.stage == SavedStage::Train)
    }

    /// The ranks after and before this one, where each keeps copies of the rows that its predecessor writes.
    pub fn neighbours(&self) -> Option<(Rank, Rank)> {
        let (rank, world) = (self.assignment.rank.index(), self.assignment.world);
        let copies = self.place.config.memory.replicas > 0 && world > 1 && self.place.writes_back();
        let at = |distance: usize| Rank(((rank + distance) % world) as u32);
        copies.then(|| (at(1), at(world - 1)))
    }

    /// Frames of a video at the configured rate; 0 of one that cannot be opened, which is noted and never opened again.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn length(&self, video: VideoIndex) -> Result<usize, TrainError> {
        if self.place.damage.closed(video).is_some() {
            return Ok(0);
        }
        match self.place.frames.length(&self.place.dataset.video(video).path) {
            Ok(length) => Ok(length),
            Err(error) => {
                let cause = Cause::of_video(&error);
                self.note_damage(video, cause, &error.to_string(), WITHOUT_SAMPLES)?;
                self.place.damage.close(video, error);
                Ok(0)
            }
        }
    }

    /// Rows that the memory has of a video (spec 20, section 3).
    ///
    /// # Errors
    /// The agent is gone.
    pub fn rows(&self, video: VideoIndex) -> Result<usize, TrainError> {
        Ok(self.place.config.geometry().rows(self.length(video)?))
    }

    /// How a step of this generation is done.
    pub fn step_runner(&self) -> StepRunner {
        let Workplace { config, root, device, .. } = &self.place;
        let (config, device) = (Arc::clone(config), device.clone());
        StepRunner::new(config, *root, device, self.collective.clone(), self.assignment.world)
    }

    /// This worker's samples of the training stage from a step on, read ahead.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn read_ahead(&self, from: Step) -> Result<Prefetch<LoadedStep>, TrainError> {
        let steps = from..Step(self.place.total_steps().max(from.0));
        Ok(self.place.reader.read_ahead(self.own_lanes().to_vec(), steps, READ_AHEAD_THREADS)?)
    }
}

/// Threads that decode ahead: one keeps up with a step, and decoding competes with training for the same cores.
const READ_AHEAD_THREADS: usize = 1;

/// The videos of a data set as a source of frames.
struct Videos {
    dataset: Arc<Dataset>,
    frames: Arc<FrameStore>,
    damage: Arc<Damage>,
}

impl FrameSource for Videos {
    fn length(&self, video: VideoIndex) -> Result<usize, SourceError> {
        match self.damage.closed(video) {
            Some(error) => Err(error),
            None => Ok(self.frames.length(&self.dataset.video(video).path)?),
        }
    }

    fn frames(&self, video: VideoIndex, first: FrameIndex, count: usize) -> Result<FrameBlock, SourceError> {
        Ok(self.frames.frames(&self.dataset.video(video).path, first, count)?)
    }
}
