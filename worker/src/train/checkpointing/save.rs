//! State becomes a checkpoint, and a checkpoint becomes state.
//!
//! Takes: the learner and the memory at a step boundary. Gives: parts in the object store, reported to the coordinator, which
//! alone can make a checkpoint of them. Training goes on while parts are uploaded.

use std::path::Path;
use std::time::Duration;

use burn::module::Module;
use longtake_shared::checkpoint::{
    CheckpointStore, Conditions, ContentHash, Counters, FORMAT, LaneState, Manifest,
    OptimizerState as SavedOptimizer, PartRef, RankParts, Settings,
};
use longtake_shared::config::{Resolved, RunConfig};
use longtake_shared::ids::{LaneId, Rank, Step};

use crate::checkpoint::{self, SaveRequest};
use crate::control::{SavedParts, SavedStage};
use crate::model::memory::{MemoryStore, Snapshot as MemorySnapshot};
use crate::optim::{FlatLayout, OptimizerState, Slot};
use crate::tensors::{NamedTensor, TensorFile};
use crate::train::TrainError;
use crate::train::checkpointing::schedule::Rhythm;
use crate::train::run::context::{Origin, RunContext};
use crate::train::step::gradient_sync::Control;
use crate::train::step::learner::Learner;

/// Videos of a lane whose memory shares a part: few enough that most parts do not change between two checkpoints of a
/// large data set, many enough that a small one has few objects.
pub const VIDEOS_A_PART: usize = 8;

/// How long the coordinator may take to put a checkpoint into the chain once all ranks have reported.
const COMMIT_DEADLINE: Duration = Duration::from_mins(2);

/// Pause between two looks at an upload that is waited for.
const LOOK: Duration = Duration::from_millis(2);

/// A worker's share of a checkpoint: host copies and pinned rows.
#[derive(Debug)]
pub struct Snapshot {
    stage: SavedStage,
    step: Step,
    average_map: Option<f64>,
    manifest: Option<Manifest>,
    request: SaveRequest,
}

impl Snapshot {
    /// What this worker has at the boundary before the learner's next step; weights come from rank 0 alone.
    ///
    /// # Errors
    /// The device or the memory cannot be read.
    pub fn take<M: Module>(
        run: &RunContext,
        stage: SavedStage,
        learner: &Learner<M>,
        store: Option<&MemoryStore>,
        facts: Facts,
    ) -> Result<Self, TrainError> {
        let memory: Option<MemorySnapshot> =
            store.map(|store| store.snapshot(run.own_lanes())).transpose()?;
        let mut request = SaveRequest { model: None, optimizer: None, memory, videos_a_part: VIDEOS_A_PART };
        let mut manifest = None;
        if run.assignment.rank == Rank(0) {
            let optimizer = learner.optimizer_state()?;
            manifest = Some(draft(run, stage, learner.step, learner.layout(), optimizer.time, facts)?);
            request.model = Some(model_file(run, learner.tensors())?);
            request.optimizer = Some(optimizer_file(optimizer));
        }
        let average_map = facts.average_map.filter(|_| facts.validated == Some(learner.step));
        Ok(Self { stage, step: learner.step, average_map, manifest, request })
    }
}

/// What a checkpoint holds besides tensors and positions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// What was skipped so far.
    pub counters: Counters,
    /// The last step whose validation came to its end.
    pub validated: Option<Step>,
    /// What that validation came to, where it was in this generation.
    pub average_map: Option<f64>,
}

/// Note in a file of weights: the settings of the run as JSON of [`Resolved`], without their sources: runs with equal settings
/// then write equal files.
pub const NOTE_CONFIG: &str = "longtake.settings";
/// Note in a file of weights: names of the classes, as a JSON array in the order of labels.
pub const NOTE_CLASSES: &str = "longtake.classes";

/// Metric of a manifest that holds [`Facts::validated`].
const VALIDATED_STEP: &str = "validated_step";

fn model_file(run: &RunContext, tensors: Vec<NamedTensor>) -> Result<TensorFile, TrainError> {
    let mut file = TensorFile::default();
    file.metadata.insert(NOTE_CONFIG.into(), Resolved::from((*run.place.config).clone()).to_json());
    let classes = serde_json::to_string(&run.place.dataset.classes).map_err(TrainError::Manifest)?;
    file.metadata.insert(NOTE_CLASSES.into(), classes);
    file.tensors = tensors;
    Ok(file)
}

fn optimizer_file(state: OptimizerState) -> TensorFile {
    let mut file = TensorFile::default();
    for Slot { name, values } in state.slots {
        file.tensors.push(NamedTensor::f32(name, vec![values.len()], values));
    }
    file
}

/// The manifest less the parts, which have no names before they are written.
fn draft(
    run: &RunContext,
    stage: SavedStage,
    step: Step,
    layout: &FlatLayout,
    updates: u64,
    facts: Facts,
) -> Result<Manifest, TrainError> {
    let assignment = &run.assignment;
    let lanes = (0u32..).zip(&assignment.lanes).flat_map(|(rank, lanes)| {
        lanes.iter().map(move |&lane| LaneState { lane, rank: Rank(rank), cursor: step.0 })
    });
    let mut lanes: Vec<LaneState> = lanes.collect();
    lanes.sort_by_key(|state| state.lane);
    let unwritten = PartRef::of(&[]);
    let metrics =
        facts.validated.map(|step| (VALIDATED_STEP.to_owned(), step.0 as f64)).into_iter().collect();
    Ok(Manifest {
        format: FORMAT,
        written_by: env!("CARGO_PKG_VERSION").into(),
        run: assignment.run.clone(),
        incarnation: assignment.incarnation,
        generation: assignment.generation,
        stage,
        step,
        world_size: assignment.world,
        lanes,
        conditions: conditions(run, layout)?,
        counters: facts.counters,
        optimizer_state: SavedOptimizer { updates, ..SavedOptimizer::default() },
        model: unwritten,
        optimizer: unwritten,
        memory: Vec::new(),
        best: None,
        metrics,
    })
}

/// What must be the same for a resumed run to be the same.
fn conditions(run: &RunContext, layout: &FlatLayout) -> Result<Conditions, TrainError> {
    let config = &run.place.config;
    let order: Vec<String> =
        layout.trained().map(|entry| format!("{}:{}", entry.path, entry.len())).collect();
    let buckets = format!("{}\n{}", config.cluster.bucket, order.join("\n"));
    let Origin { dataset, decoder, decoder_version } = run.place.origin()?;
    Ok(Conditions {
        seed: config.run.seed,
        lanes: config.train.lanes,
        sampled_clips: config.memory.sampled_clips(config.data.clips()),
        chunk_clips: config.memory.chunk_clips,
        bucket_layout: ContentHash::of(buckets.as_bytes()),
        memory_dtype: config.memory.dtype,
        threads: rayon::current_num_threads(),
        dataset,
        source: "videos".into(),
        decoder,
        decoder_version,
        settings: Settings::of(config),
    })
}

/// A checkpoint's tensors as they were read.
#[derive(Debug)]
pub struct Restored {
    /// Parameters and buffers.
    pub tensors: Vec<NamedTensor>,
    /// The optimizer's memory.
    pub optimizer: OptimizerState,
}

/// The last step whose validation came to its end before a checkpoint.
pub fn validated(manifest: &Manifest) -> Option<Step> {
    manifest.metrics.get(VALIDATED_STEP).map(|step| Step(*step as u64))
}

impl Restored {
    /// Whether the run, as this worker sees it, is the one that was saved.
    ///
    /// # Errors
    /// What differs, unless `checkpoint.allow_changes` is set.
    pub fn require_same(
        &self,
        run: &RunContext,
        manifest: &Manifest,
        layout: &FlatLayout,
    ) -> Result<(), TrainError> {
        let mut now = conditions(run, layout)?;
        if manifest.world_size != run.assignment.world {
            // Another number of workers shares the cores anew; sums are then rounded otherwise in any case.
            now.threads = manifest.conditions.threads;
        }
        let allowed = run.place.config.checkpoint.allow_changes;
        for mismatch in manifest.conditions.require_same(&now, allowed)? {
            tracing::warn!(what = %mismatch.what, then = %mismatch.then, now = %mismatch.now, "resumed under other conditions");
        }
        Ok(())
    }
}

/// The checkpoints of a run, as a worker has them open from one generation to the next.
#[derive(Debug)]
pub struct Archive {
    uploads: checkpoint::Saver,
    loader: checkpoint::Loader,
}

impl Archive {
    /// Opens the object store of a run.
    ///
    /// # Errors
    /// The store cannot be opened, or there are no threads.
    pub fn open(config: &RunConfig, run_folder: &Path) -> Result<Self, TrainError> {
        let store = CheckpointStore::of_run(config, run_folder)?;
        let uploads = checkpoint::Saver::new(store.clone())?;
        let loader = checkpoint::Loader::new(store)?;
        Ok(Self { uploads, loader })
    }

    /// Weights and optimizer of a checkpoint.
    ///
    /// # Errors
    /// A part is missing or damaged.
    pub fn load(&self, run: &RunContext, manifest: &Manifest) -> Result<Restored, TrainError> {
        let loaded = self.loader.tensors(manifest).map_err(unloadable(manifest))?;
        let tensors = TensorFile::decode(&loaded.model)?.tensors;
        let slots = TensorFile::decode(&loaded.optimizer)?
            .tensors
            .into_iter()
            .filter_map(|tensor| Some(Slot { name: tensor.name.clone(), values: tensor.into_f32()? }))
            .collect();
        let optim = match manifest.stage {
            SavedStage::Pretrain => &run.place.config.pretrain.optim,
            SavedStage::Train => &run.place.config.optim,
        };
        let optimizer = OptimizerState { kind: optim.kind, time: manifest.optimizer_state.updates, slots };
        Ok(Restored { tensors, optimizer })
    }

    /// Puts a checkpoint's memory of a lane into a store that has the lane.
    ///
    /// # Errors
    /// A part is missing or damaged, or the checkpoint has no memory of the lane.
    pub fn restore_lane(
        &self,
        manifest: &Manifest,
        lane: LaneId,
        store: &mut MemoryStore,
    ) -> Result<(), TrainError> {
        self.loader.memory(manifest, &[lane], store).map_err(unloadable(manifest))
    }

    /// Nothing more is loaded in this generation: what was may be swept.
    pub fn end_loading(&self) {
        self.loader.end();
    }
}

/// A checkpoint that is not whole is told apart from all else: the coordinator may choose an older one.
fn unloadable(manifest: &Manifest) -> impl FnOnce(checkpoint::LoadError) -> TrainError {
    let step = manifest.step;
    move |source| TrainError::Checkpoint { step, source: Box::new(source) }
}

/// What is reported when its upload has ended.
struct InFlight {
    stage: SavedStage,
    step: Step,
    average_map: Option<f64>,
    manifest: Option<Manifest>,
}

/// Uploads this worker's share of checkpoints and reports them, in one generation. Dropping it leaves a save in flight behind.
pub struct Saver<'a> {
    run: &'a RunContext,
    uploads: &'a mut checkpoint::Saver,
    in_flight: Option<InFlight>,
    reported: Option<(SavedStage, Step)>,
}

impl<'a> Saver<'a> {
    /// For a generation.
    pub fn new(run: &'a RunContext, archive: &'a mut Archive) -> Self {
        Self { run, uploads: &mut archive.uploads, in_flight: None, reported: None }
    }

    /// Whether every save that was begun is in the chain.
    pub fn is_idle(&self) -> bool {
        let in_chain = |(stage, step)| {
            let newest = self.run.session.committed().map(|(stage, step, _)| (stage, step));
            newest >= Some((stage, step))
        };
        self.in_flight.is_none() && self.reported.is_none_or(in_chain)
    }

    /// What this rank wishes at the next boundary; rank 0 also that a checkpoint is begun when it is time.
    pub fn wishes(&self, rhythm: &Rhythm) -> Control {
        let mut control = Control::wishing(self.run.session.flags());
        let idle = self.is_idle();
        control.saving = f32::from(u8::from(!idle));
        if idle && self.run.assignment.rank == Rank(0) && rhythm.is_time() {
            control.checkpoint += 1.0;
        }
        control
    }

    /// Begins to upload, once the checkpoint before is in the chain: the coordinator sweeps when it has committed, and would
    /// take parts that no checkpoint names yet for garbage.
    ///
    /// # Errors
    /// The upload before failed, or the coordinator did not commit it in time.
    pub fn start(&mut self, snapshot: Snapshot) -> Result<(), TrainError> {
        self.finish()?;
        let Snapshot { stage, step, average_map, manifest, request } = snapshot;
        self.uploads.start(request)?;
        self.in_flight = Some(InFlight { stage, step, average_map, manifest });
        Ok(())
    }

    /// Reports an upload that has ended; to be called between steps.
    ///
    /// # Errors
    /// The upload failed.
    pub fn poll(&mut self) -> Result<(), TrainError> {
        match self.uploads.poll() {
            Some(saved) => self.report(saved?),
            None => Ok(()),
        }
    }

    /// Waits until the last checkpoint that was begun is in the chain.
    ///
    /// # Errors
    /// The upload failed, or the coordinator did not commit it in time.
    pub fn finish(&mut self) -> Result<(), TrainError> {
        // How long the store and the coordinator take is not this worker's to answer for.
        self.run.session.pause();
        self.settle()?;
        if let Some((stage, step)) = self.reported {
            let generation = self.run.assignment.generation;
            // A coordinator that is gone may come back and commit then.
            let patience =
                COMMIT_DEADLINE + Duration::from_secs_f64(self.run.place.config.cluster.coordinator_grace.0);
            self.run.session.wait_committed(generation, stage, step, patience)?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), TrainError> {
        while self.in_flight.is_some() {
            self.poll()?;
            self.run.collective.check()?;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn report(&mut self, saved: checkpoint::SavedParts) -> Result<(), TrainError> {
        let Some(InFlight { stage, step, average_map, mut manifest }) = self.in_flight.take() else {
            return Ok(());
        };
        if let Some(manifest) = &mut manifest {
            manifest.model = saved.model.unwrap_or(manifest.model);
            manifest.optimizer = saved.optimizer.unwrap_or(manifest.optimizer);
        }
        let parts = RankParts { manifest, memory: saved.memory };
        let parts = serde_json::to_value(parts).map_err(TrainError::Manifest)?;
        let saved = SavedParts { stage, step, average_map, parts };
        self.run.session.parts_saved(self.run.assignment.generation, saved)?;
        self.reported = Some((stage, step));
        Ok(())
    }
}

impl Drop for Saver<'_> {
    fn drop(&mut self) {
        if self.in_flight.is_some() {
            self.uploads.abandon();
        }
    }
}
