//! State becomes a checkpoint, and a checkpoint becomes state.
//!
//! Takes: the learner and the memory at a step boundary. Gives: parts in the object store, reported to the coordinator, which
//! alone can make a checkpoint of them. Training goes on while parts are uploaded.

use std::time::Duration;

use burn::module::Module;
use longtake_shared::checkpoint::{
    CheckpointStore, Conditions, ContentHash, Counters, FORMAT, LaneState, Manifest,
    OptimizerState as SavedOptimizer, PartRef, RankParts, Settings, Stage as SavedStage,
};
use longtake_shared::ids::{LaneId, Rank, Step};

use super::TrainError;
use super::context::RunContext;
use super::learner::Learner;
use super::tape::NamedTensor;
use crate::checkpoint::{self, SaveRequest, TensorData, TensorFile};
use crate::control::{SavedParts, Stage};
use crate::model::memory::{MemoryStore, Snapshot as MemorySnapshot};
use crate::optim::{FlatLayout, OptimizerState, Slot};

/// Videos of a lane whose memory shares a part: few enough that most parts do not change between two checkpoints of a
/// large data set, many enough that a small one has few objects.
const VIDEOS_A_PART: usize = 8;

/// How long the coordinator may take to put a checkpoint into the chain once all ranks have reported.
const COMMIT_DEADLINE: Duration = Duration::from_mins(2);

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

/// Note in a file of weights: the settings of the run, as JSON of [`longtake_shared::config::Resolved`].
pub const NOTE_CONFIG: &str = "longtake.settings";
/// Note in a file of weights: names of the classes, as a JSON array in the order of labels.
pub const NOTE_CLASSES: &str = "longtake.classes";

/// Metric of a manifest that holds [`Facts::validated`].
const VALIDATED_STEP: &str = "validated_step";

fn model_file(run: &RunContext, tensors: Vec<NamedTensor>) -> Result<TensorFile, TrainError> {
    let mut file = TensorFile::default();
    file.metadata.insert(NOTE_CONFIG.into(), run.assignment.config_json.clone());
    let classes = serde_json::to_string(&run.dataset.classes).map_err(TrainError::Manifest)?;
    file.metadata.insert(NOTE_CLASSES.into(), classes);
    for NamedTensor { name, shape, values } in tensors {
        file.tensors.push(checkpoint::NamedTensor { name, shape, data: TensorData::F32(values) });
    }
    Ok(file)
}

fn optimizer_file(state: OptimizerState) -> TensorFile {
    let mut file = TensorFile::default();
    for Slot { name, values } in state.slots {
        let shape = vec![values.len()];
        file.tensors.push(checkpoint::NamedTensor { name, shape, data: TensorData::F32(values) });
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
    let config = &run.config;
    let order: Vec<String> =
        layout.trained().map(|entry| format!("{}:{}", entry.path, entry.len())).collect();
    let buckets = format!("{}\n{}", config.cluster.bucket, order.join("\n"));
    let (decoder, decoder_version) = run.decoder()?;
    Ok(Conditions {
        seed: config.run.seed,
        lanes: config.train.lanes,
        sampled_clips: config.memory.sampled_clips(config.data.clips()),
        chunk_clips: config.memory.chunk_clips,
        bucket_layout: ContentHash::of(buckets.as_bytes()),
        memory_dtype: config.memory.dtype,
        threads: rayon::current_num_threads(),
        dataset: ContentHash::of(run.dataset.fingerprint()?.as_bytes()),
        source: "videos".into(),
        decoder,
        decoder_version,
        settings: Settings::of(config),
    })
}

/// A checkpoint as it was read, less the memory.
#[derive(Debug)]
pub struct Restored {
    /// The manifest.
    pub manifest: Manifest,
    /// Parameters and buffers.
    pub tensors: Vec<NamedTensor>,
    /// The optimizer's memory.
    pub optimizer: OptimizerState,
}

impl Restored {
    /// The last step whose validation came to its end.
    pub fn validated(&self) -> Option<Step> {
        self.manifest.metrics.get(VALIDATED_STEP).map(|step| Step(*step as u64))
    }

    /// Whether the run, as this worker sees it, is the one that was saved.
    ///
    /// # Errors
    /// What differs, unless `checkpoint.allow_changes` is set.
    pub fn require_same(&self, run: &RunContext, layout: &FlatLayout) -> Result<(), TrainError> {
        let mut now = conditions(run, layout)?;
        if self.manifest.world_size != run.assignment.world {
            // Another number of workers shares the cores anew; sums are then rounded otherwise in any case.
            now.threads = self.manifest.conditions.threads;
        }
        let allowed = run.config.checkpoint.allow_changes;
        for mismatch in self.manifest.conditions.require_same(&now, allowed)? {
            tracing::warn!(what = %mismatch.what, then = %mismatch.then, now = %mismatch.now, "resumed under other conditions");
        }
        Ok(())
    }
}

/// What is reported when its upload has ended.
struct InFlight {
    stage: SavedStage,
    step: Step,
    average_map: Option<f64>,
    manifest: Option<Manifest>,
}

/// Uploads this worker's share of checkpoints and reports them; reads checkpoints back.
pub struct Saver<'a> {
    run: &'a RunContext,
    uploads: checkpoint::Saver,
    loader: checkpoint::Loader,
    in_flight: Option<InFlight>,
    reported: Option<(SavedStage, Step)>,
}

impl<'a> Saver<'a> {
    /// For the object store of a run.
    ///
    /// # Errors
    /// The store cannot be opened, or there are no threads.
    pub fn open(run: &'a RunContext) -> Result<Self, TrainError> {
        let store = CheckpointStore::of_run(&run.config, &run.assignment.run_folder)?;
        let uploads = checkpoint::Saver::new(store.clone())?;
        let loader = checkpoint::Loader::new(store)?;
        Ok(Self { run, uploads, loader, in_flight: None, reported: None })
    }

    /// Weights and optimizer of a checkpoint.
    ///
    /// # Errors
    /// A part is missing or damaged.
    pub fn load(&self, manifest: Manifest) -> Result<Restored, TrainError> {
        let loaded = self.loader.tensors(&manifest)?;
        let tensors = TensorFile::decode(&loaded.model)?.tensors.into_iter().filter_map(named).collect();
        let slots = TensorFile::decode(&loaded.optimizer)?
            .tensors
            .into_iter()
            .filter_map(named)
            .map(|tensor| Slot { name: tensor.name, values: tensor.values })
            .collect();
        let optim = match manifest.stage {
            SavedStage::Pretrain => &self.run.config.pretrain.optim,
            SavedStage::Train => &self.run.config.optim,
        };
        let optimizer = OptimizerState { kind: optim.kind, time: manifest.optimizer_state.updates, slots };
        Ok(Restored { manifest, tensors, optimizer })
    }

    /// Puts the memory of these lanes into a store. Gives whether the checkpoint had any.
    ///
    /// # Errors
    /// A part is missing or damaged.
    pub fn restore_memory(
        &self,
        manifest: &Manifest,
        lanes: &[LaneId],
        store: &mut MemoryStore,
    ) -> Result<bool, TrainError> {
        if manifest.memory.is_empty() {
            return Ok(false);
        }
        self.loader.memory(manifest, lanes, store)?;
        Ok(true)
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
        self.settle()?;
        if let Some((stage, step)) = self.reported {
            let generation = self.run.assignment.generation;
            self.run.session.wait_committed(generation, control_stage(stage), step, COMMIT_DEADLINE)?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), TrainError> {
        match self.uploads.wait() {
            Some(saved) => self.report(saved?),
            None => Ok(()),
        }
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
        let saved = SavedParts { stage: control_stage(stage), step, average_map, parts };
        self.run.session.parts_saved(self.run.assignment.generation, &saved)?;
        self.reported = Some((stage, step));
        Ok(())
    }
}

fn control_stage(stage: SavedStage) -> Stage {
    match stage {
        SavedStage::Pretrain => Stage::Pretrain,
        SavedStage::Train => Stage::Train,
    }
}

fn named(tensor: checkpoint::NamedTensor) -> Option<NamedTensor> {
    match tensor.data {
        TensorData::F32(values) => Some(NamedTensor { name: tensor.name, shape: tensor.shape, values }),
        _ => None,
    }
}
