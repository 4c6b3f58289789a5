//! The loop: step, report, validate, save, obey. Everything a step needs is asked for here and nowhere else.

use std::time::Instant;

use burn::tensor::Device;
use longtake_shared::config::MemorySource;
use longtake_shared::ids::{Epoch, LaneId, Step, VideoIndex};
use longtake_shared::units::Seconds;

use crate::control::{Ending, SavedStage, Stage, StepPhase};
use crate::data::loader::{LaneSample, LoadError, LoadedStep};
use crate::data::plan::SamplePlan;
use crate::data::prefetch::Prefetch;
use crate::model::memory::RowState;
use crate::train::TrainError;
use crate::train::checkpointing::save::{self, Saver, Snapshot};
use crate::train::checkpointing::schedule::{Reasons, Rhythm};
use crate::train::memory::lane_memory::LaneMemory;
use crate::train::memory::replicas;
use crate::train::memory::write_back::{PendingRows, WriteBack};
use crate::train::run::context::RunContext;
use crate::train::run::report::Reporter;
use crate::train::stages::generation::Ended;
use crate::train::stages::validate::{self, Validated};
use crate::train::state::worker_state::Training;
use crate::train::step::gradient_sync::{Control, Wish};
use crate::train::step::non_finite;
use crate::train::step::step_runner::StepRunner;
use crate::train::step::{FreshRows, InputClip, LaneInput, Sample};

/// The training stage of one generation.
pub struct Trainer<'a> {
    /// The run as this worker sees it.
    pub run: &'a RunContext,
    /// How a step is done.
    pub steps: StepRunner,
    /// What learns, and what is kept when the generation ends.
    pub state: &'a mut Training,
    /// The long memory of this worker's lanes.
    pub memory: &'a mut LaneMemory,
    /// Uploads checkpoints while training goes on.
    pub saver: Saver<'a>,
    /// When a checkpoint is begun.
    pub rhythm: Rhythm,
    /// Samples from the state's step on, read ahead.
    pub samples: Prefetch<LoadedStep>,
    /// Whether this worker has told of damaged rows in this generation.
    pub told_of_damage: bool,
}

/// What is due after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Due {
    validation: bool,
    checkpoint: bool,
}

impl Trainer<'_> {
    /// Trains to the last step, or until all ranks agree to stop or to leave.
    ///
    /// # Errors
    /// The generation was aborted, too many steps in a row were not finite, or something the run cannot do without failed.
    pub fn train(mut self) -> Result<Ended, TrainError> {
        let total = self.run.place.total_steps();
        let mut reporter = Reporter::new(self.run, Stage::Train, total, self.state.learner.step.0);
        if let Some(newest) = &mut self.state.newest {
            reporter.again(newest);
        }
        if let Some(ended) = self.catch_up()? {
            return Ok(ended);
        }
        while self.state.learner.step.0 < total {
            let control = self.step(&mut reporter)?;
            self.saver.poll()?;
            self.forget_saved_copies();
            if let Some(ended) = self.boundary(&control)? {
                return Ok(ended);
            }
        }
        self.saver.finish()?;
        Ok(Ended::Finished(Ending::Completed, self.state.learner.step))
    }

    /// Does what the step that the generation begins with still lacks: its validation may be the best, and a checkpoint that
    /// was due there may have been abandoned.
    fn catch_up(&mut self) -> Result<Option<Ended>, TrainError> {
        let step = self.state.learner.step;
        let newest = self.run.newest_of_training().filter(|manifest| manifest.step == step);
        let saved = newest.is_some_and(|manifest| save::validated(manifest) == self.state.validated);
        if self.lacks_validation() {
            let wish = self.validate()?;
            if wish == Wish::GoOn || (wish == Wish::Stop && newest.is_none()) {
                self.save()?;
            }
            return self.end(wish);
        }
        if self.due(step).checkpoint && step.0 > 0 && !saved {
            self.save()?;
        }
        Ok(None)
    }

    /// What follows a step: validation, checkpoint, the end of the generation.
    fn boundary(&mut self, control: &Control) -> Result<Option<Ended>, TrainError> {
        let step = self.state.learner.step;
        let mut wish = control.wish();
        let due = self.due(step);
        if due.validation && wish == Wish::GoOn {
            wish = self.validate()?;
        }
        let reasons = Reasons {
            must: wish == Wish::Stop || (due.validation && wish == Wish::GoOn),
            due: due.checkpoint,
            asked: control.checkpoint > 0.0,
        };
        if self.rhythm.begins(reasons, control.saving > 0.0) {
            self.save()?;
        }
        if step.0 < self.run.place.total_steps() || self.lacks_validation() {
            self.end(wish)
        } else {
            Ok(None)
        }
    }

    /// Settles the save in flight where all ranks have agreed to end.
    fn end(&mut self, wish: Wish) -> Result<Option<Ended>, TrainError> {
        let ended = match wish {
            Wish::GoOn => return Ok(None),
            Wish::Leave => Ended::Left,
            Wish::Stop => Ended::Finished(Ending::Stopped, self.state.learner.step),
        };
        self.saver.finish()?;
        Ok(Some(ended))
    }

    /// Whether the validation that is due at this step boundary has not come to its end.
    fn lacks_validation(&self) -> bool {
        let step = self.state.learner.step;
        self.due(step).validation && self.state.validated != Some(step)
    }

    /// What the settings ask for at a step boundary. The last step is always validated and saved.
    fn due(&self, step: Step) -> Due {
        let config = &self.run.place.config;
        let (Epoch(epoch), position) = self.run.place.lanes.position(step);
        let last = step.0 == self.run.place.total_steps();
        let boundary = position == 0 && epoch > 0;
        let every = |epochs: u64| boundary && epochs > 0 && epoch % epochs == 0;
        let validation = step.0 > 0 && (last || every(config.train.validate_every));
        Due { validation, checkpoint: last || validation || every(config.checkpoint.every) }
    }

    /// One step: remembered rows come in, [`StepRunner`] does the rest, fresh rows go back.
    fn step(&mut self, reporter: &mut Reporter<'_>) -> Result<Control, TrainError> {
        let session = &self.run.session;
        let now = self.state.learner.step;
        session.enter(now, StepPhase::Data);
        let started = Instant::now();
        let collective = &self.run.collective;
        let loaded = self.samples.next_while(|| collective.check().is_ok())?;
        collective.check()?;
        let Some(loaded) = loaded else { return Err(TrainError::OutOfSamples { step: now }) };
        let mut control = self.saver.wishes(&self.rhythm);
        let inputs = self.recall(loaded, &mut control)?;
        control.damaged_videos = self.run.place.damage.unshared() as f32;
        let enter = |phase| session.enter(now, phase);
        let mut computed = self.steps.compute(&self.state.learner, &inputs, control, &enter)?;
        let rows = std::mem::take(&mut computed.rows);
        // From here on others may commit the step while this rank is aborted.
        self.state.pending = Some(self.pending(&inputs, rows));
        let committed = self.steps.commit(&mut self.state.learner, computed, &enter)?;
        session.enter(now, StepPhase::WriteBack);
        let written = self.state.pending.take().filter(|_| committed.moved.applied);
        if let Some(rows) = &written {
            self.memory.write(rows)?;
        }
        let counters = &mut self.state.counters;
        counters.skipped_samples += committed.control.skipped as u64;
        let taken = (SavedStage::Train, self.state.learner.step);
        non_finite::note(
            counters,
            committed.moved.applied,
            self.run.place.config.train.max_non_finite,
            taken,
        )?;
        let took = Seconds(started.elapsed().as_secs_f64());
        let terms = self.state.learner.module.detection.terms();
        let numbers = reporter.step(&committed.control, terms, &committed.moved, &self.state.counters, took);
        self.state.newest = Some(numbers);
        if let Some(rows) = &written {
            session.enter(now, StepPhase::Reduce);
            replicas::pass_on(self.run, self.memory, rows)?;
        }
        self.run.share_damage(committed.control.damaged_videos)?;
        Ok(committed.control)
    }

    /// What is written back once the step is committed.
    fn pending(&self, inputs: &[LaneInput], rows: Vec<FreshRows>) -> PendingRows {
        let write_back = |FreshRows { input, clip, values }: FreshRows| {
            let LaneInput { lane, sample } = &inputs[input];
            let plan = &sample.as_ref()?.plan;
            Some(WriteBack { lane: *lane, video: plan.video, first_row: plan.first_row(clip), values })
        };
        let rows = if self.run.place.writes_back() { rows } else { Vec::new() };
        PendingRows {
            step: self.state.learner.step.next(),
            rows: rows.into_iter().filter_map(write_back).collect(),
        }
    }

    /// Copies go once a checkpoint holds what they are copies of.
    fn forget_saved_copies(&mut self) {
        if let Some((SavedStage::Train, step, _)) = self.run.session.committed() {
            self.memory.copies.forget_until(step);
        }
    }

    /// Adds remembered rows to the samples, and the clips of which memory lacks rows.
    fn recall(&mut self, loaded: LoadedStep, control: &mut Control) -> Result<Vec<LaneInput>, TrainError> {
        let mut inputs = Vec::with_capacity(loaded.samples.len());
        for (lane, sample) in loaded.samples {
            let sample = match sample {
                LaneSample::Ready { plan, clips } => {
                    let video = plan.video;
                    match self.recall_sample(*plan, clips, control) {
                        Ok(sample) => Some(sample),
                        // A clip that memory lacks may lie where the file is damaged.
                        Err(TrainError::Load(error)) => self.skip(video, error, control)?,
                        Err(error) => return Err(error),
                    }
                }
                LaneSample::Unreadable { video, error } => self.skip(video, error, control)?,
                LaneSample::Idle => None,
            };
            inputs.push(LaneInput { lane, sample });
        }
        Ok(inputs)
    }

    /// Counts a sample that cannot be read, and goes on without it.
    fn skip<S>(
        &self,
        video: VideoIndex,
        error: LoadError,
        control: &mut Control,
    ) -> Result<Option<S>, TrainError> {
        control.skipped += 1.0;
        self.run.note_unreadable(video, error)?;
        Ok(None)
    }

    fn recall_sample(
        &mut self,
        plan: SamplePlan,
        clips: Vec<Vec<f32>>,
        control: &mut Control,
    ) -> Result<Sample, TrainError> {
        let rows_of_clip = plan.rows_per_clip();
        let rows = plan.clips * rows_of_clip;
        let sampled = plan.sampled.iter().zip(clips);
        let mut clips: Vec<InputClip> =
            sampled.map(|(&clip, pixels)| InputClip { clip, pixels, trains: true }).collect();
        let remembers = self.run.place.config.memory.source == MemorySource::Remembered;
        if !remembers || clips.len() == plan.clips {
            let channels = self.run.place.config.geometry().channels;
            return Ok(Sample { plan, clips, remembered: vec![0.0; rows * channels] });
        }
        let window = self.memory.store.read(plan.lane, plan.video, plan.first_row(0), rows)?;
        if window.damaged > 0 {
            self.note_damage(plan.lane, window.damaged, control)?;
        }
        for clip in (0..plan.clips).filter(|clip| !plan.sampled.contains(clip)) {
            let states = &window.state[clip * rows_of_clip..(clip + 1) * rows_of_clip];
            if states.contains(&RowState::Absent) {
                control.absent_rows += rows_of_clip as f32;
                let pixels = self.run.place.reader.clip(&plan, clip)?;
                clips.push(InputClip { clip, pixels, trains: false });
                continue;
            }
            for state in states {
                if let RowState::Remembered { written } = state {
                    control.age_sum += self.state.learner.step.0.saturating_sub(written.0) as f32;
                    control.age_count += 1.0;
                }
            }
        }
        Ok(Sample { plan, clips, remembered: window.values })
    }

    /// Counts damaged rows, and tells of the first. They count as absent: this step computes them again and writes them back.
    fn note_damage(&mut self, lane: LaneId, rows: usize, control: &mut Control) -> Result<(), TrainError> {
        control.damaged_rows += rows as f32;
        if std::mem::replace(&mut self.told_of_damage, true) {
            return Ok(());
        }
        let RunContext { assignment, worker, session, .. } = self.run;
        let text = format!(
            "{rows} rows of {lane} in the long memory of worker {worker} ({}) are damaged; these and any others \
             that are found are computed again, and `damaged_rows` counts them",
            assignment.rank
        );
        Ok(session.warning(assignment.generation, text)?)
    }

    /// Gives what all ranks wished meanwhile, if they left off.
    fn validate(&mut self) -> Result<Wish, TrainError> {
        let step = self.state.learner.step;
        match validate::validate(self.run, &self.state.learner.module, step)? {
            Validated::Done(average_map) => {
                self.state.validated = Some(step);
                self.state.average_map = Some(average_map);
                Ok(Wish::GoOn)
            }
            Validated::LeftOff(wish) => Ok(wish),
        }
    }

    fn save(&mut self) -> Result<(), TrainError> {
        self.run.session.enter(self.state.learner.step, StepPhase::Save);
        let learner = &self.state.learner;
        let memory = Some(&self.memory.store);
        let snapshot = Snapshot::take(self.run, SavedStage::Train, learner, memory, self.state.facts())?;
        self.saver.start(snapshot)
    }
}

/// The device of this worker: its GPU where it was built for one, else the CPU.
pub fn device() -> Device {
    #[cfg(feature = "cuda")]
    {
        Device::cuda(0)
    }
    #[cfg(not(feature = "cuda"))]
    {
        Device::flex()
    }
}
