//! The loop: step, report, validate, save, obey. Everything a step needs is asked for here and nowhere else.

use std::time::Instant;

use burn::tensor::Device;
use longtake_shared::checkpoint::{Counters, Stage as SavedStage};
use longtake_shared::config::MemorySource;
use longtake_shared::ids::{Epoch, Step};
use longtake_shared::units::Seconds;

use super::agree::Control;
use super::committed::StepSettings;
use super::context::RunContext;
use super::learner::Learner;
use super::report::Reporter;
use super::save::{Facts, Saver, Snapshot};
use super::step::{FreshRows, InputClip, LaneInput, Sample};
use super::{TrainError, validate};
use crate::control::{Ending, Stage, StepPhase};
use crate::data::loader::{LaneSample, LoadedStep};
use crate::data::plan::{FRAMES_PER_ROW, SamplePlan};
use crate::data::prefetch::Prefetch;
use crate::model::detector::Detector;
use crate::model::memory::{MemoryStore, RowState};

/// The training stage of one generation.
pub struct Trainer<'a> {
    /// The run as this worker sees it.
    pub run: &'a RunContext,
    /// How a step is done.
    pub steps: StepSettings,
    /// Model, optimizer, step.
    pub learner: Learner<Detector>,
    /// The long memory of this worker's lanes.
    pub store: MemoryStore,
    /// What was skipped so far.
    pub counters: Counters,
    /// Uploads checkpoints while training goes on.
    pub saver: &'a mut Saver<'a>,
    /// The step whose validation is done already, where a resumed run stopped after it.
    pub validated: Option<Step>,
    /// What that validation came to, where it was in this generation.
    pub average_map: Option<f64>,
}

/// What is due after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Due {
    validation: bool,
    checkpoint: bool,
}

impl Trainer<'_> {
    /// Trains to the last step, or until all ranks agree to stop.
    ///
    /// # Errors
    /// The generation was aborted, too many steps in a row were not finite, or something the run cannot do without failed.
    pub fn train(mut self) -> Result<(Ending, Step), TrainError> {
        let run = self.run;
        let total = run.total_steps();
        let mut reporter = Reporter::new(run, Stage::Train, total, self.learner.step.0);
        if self.lacks_validation() {
            // The run had stopped before this validation: it may be the best, so its checkpoint is made again.
            if !self.validate()? {
                return Ok((Ending::Stopped, self.learner.step));
            }
            self.save()?;
        }
        let mut samples = run.read_ahead(self.learner.step, Step(total))?;
        while self.learner.step.0 < total {
            let control = self.step(&mut samples, &mut reporter)?;
            self.saver.poll()?;
            let mut stop = control.stop > 0.0;
            let due = self.due(self.learner.step, control.checkpoint > 0.0);
            if due.validation && !stop {
                stop = !self.validate()?;
            }
            if due.checkpoint || stop {
                self.save()?;
            }
            if stop && (self.learner.step.0 < total || self.lacks_validation()) {
                self.saver.finish()?;
                return Ok((Ending::Stopped, self.learner.step));
            }
        }
        self.saver.finish()?;
        Ok((Ending::Completed, self.learner.step))
    }

    /// Whether the validation that is due at this step boundary has not come to its end.
    fn lacks_validation(&self) -> bool {
        self.due(self.learner.step, false).validation && self.validated != Some(self.learner.step)
    }

    /// What the settings ask for at a step boundary. The last step is always validated and saved.
    fn due(&self, step: Step, asked: bool) -> Due {
        let config = &self.run.config;
        let (Epoch(epoch), position) = self.run.lanes.position(step);
        let last = step.0 == self.run.total_steps();
        let boundary = position == 0 && epoch > 0;
        let every = |epochs: u64| boundary && epochs > 0 && epoch % epochs == 0;
        let validation = step.0 > 0 && (last || every(config.train.validate_every));
        Due { validation, checkpoint: asked || last || validation || every(config.checkpoint.every) }
    }

    /// One step: remembered rows come in, [`StepSettings::run`] does the rest, fresh rows go back.
    fn step(
        &mut self,
        samples: &mut Prefetch<LoadedStep>,
        reporter: &mut Reporter<'_>,
    ) -> Result<Control, TrainError> {
        let session = &self.run.session;
        let now = self.learner.step;
        session.enter(now, StepPhase::Data);
        let started = Instant::now();
        let Some(loaded) = samples.next()? else { return Err(TrainError::OutOfSamples { step: now }) };
        let flags = session.flags();
        let mut control = Control {
            skipped: loaded.unreadable() as f32,
            stop: f32::from(u8::from(flags.stop)),
            checkpoint: f32::from(u8::from(flags.checkpoint)),
            ..Control::default()
        };
        let inputs = self.recall(loaded, &mut control)?;
        let committed =
            self.steps.run(&mut self.learner, &inputs, control, &mut |phase| session.enter(now, phase))?;
        session.enter(now, StepPhase::WriteBack);
        self.write_back(&inputs, committed.rows)?;
        self.note(committed.moved.applied, &committed.control)?;
        let took = Seconds(started.elapsed().as_secs_f64());
        reporter.step(&committed.control, &committed.moved, &self.counters, took);
        Ok(committed.control)
    }

    /// Adds remembered rows to the samples, and the clips of which memory lacks rows.
    fn recall(&self, loaded: LoadedStep, control: &mut Control) -> Result<Vec<LaneInput>, TrainError> {
        let mut inputs = Vec::with_capacity(loaded.samples.len());
        for (lane, sample) in loaded.samples {
            let sample = match sample {
                LaneSample::Ready { plan, clips } => Some(self.recall_sample(*plan, clips, control)?),
                LaneSample::Idle | LaneSample::Unreadable { .. } => None,
            };
            inputs.push(LaneInput { lane, sample });
        }
        Ok(inputs)
    }

    fn recall_sample(
        &self,
        plan: SamplePlan,
        clips: Vec<Vec<f32>>,
        control: &mut Control,
    ) -> Result<Sample, TrainError> {
        let rows_of_clip = plan.clip_frames / FRAMES_PER_ROW;
        let rows = plan.clips * rows_of_clip;
        let sampled = plan.sampled.iter().zip(clips);
        let mut clips: Vec<InputClip> =
            sampled.map(|(&clip, pixels)| InputClip { clip, pixels, trains: true }).collect();
        let remembers = self.run.config.memory.source == MemorySource::Remembered;
        if !remembers || clips.len() == plan.clips {
            let channels = self.run.config.model.backbone.channels();
            return Ok(Sample { plan, clips, remembered: vec![0.0; rows * channels] });
        }
        let window = self.store.read(plan.lane, plan.video, plan.first_row(0), rows)?;
        for clip in (0..plan.clips).filter(|clip| !plan.sampled.contains(clip)) {
            let states = &window.state[clip * rows_of_clip..(clip + 1) * rows_of_clip];
            if states.contains(&RowState::Absent) {
                control.absent_rows += rows_of_clip as f32;
                let pixels = self.run.reader.clip(&plan, clip)?;
                clips.push(InputClip { clip, pixels, trains: false });
                continue;
            }
            for state in states {
                if let RowState::Remembered { written } = state {
                    control.age_sum += self.learner.step.0.saturating_sub(written.0) as f32;
                    control.age_count += 1.0;
                }
            }
        }
        Ok(Sample { plan, clips, remembered: window.values })
    }

    /// Counts what was skipped; too many steps in a row that are not finite end the run.
    fn note(&mut self, applied: bool, control: &Control) -> Result<(), TrainError> {
        self.counters.skipped_samples += control.skipped as u64;
        if applied {
            self.counters.non_finite_in_a_row = 0;
            return Ok(());
        }
        self.counters.non_finite_steps += 1;
        self.counters.non_finite_in_a_row += 1;
        let limit = self.run.config.train.max_non_finite;
        if self.counters.non_finite_in_a_row >= limit {
            return Err(TrainError::NotFinite {
                step: self.learner.step,
                in_a_row: self.counters.non_finite_in_a_row,
            });
        }
        Ok(())
    }

    /// Fresh features replace the remembered rows: the last act of a committed step.
    fn write_back(&mut self, inputs: &[LaneInput], rows: Vec<FreshRows>) -> Result<(), TrainError> {
        if !self.run.config.memory.write_back || self.run.config.memory.source == MemorySource::Zeros {
            return Ok(());
        }
        for fresh in rows {
            let input = &inputs[fresh.input];
            let Some(sample) = &input.sample else { continue };
            let first = sample.plan.first_row(fresh.clip);
            self.store.write(input.lane, sample.plan.video, self.learner.step, first, &fresh.values)?;
        }
        Ok(())
    }

    /// Gives whether it came to its end.
    fn validate(&mut self) -> Result<bool, TrainError> {
        let average_map = validate::validate(self.run, &self.learner.module, self.learner.step)?;
        if average_map.is_some() {
            self.validated = Some(self.learner.step);
            self.average_map = average_map;
        }
        Ok(average_map.is_some())
    }

    fn save(&mut self) -> Result<(), TrainError> {
        self.run.session.enter(self.learner.step, StepPhase::Save);
        let facts =
            Facts { counters: self.counters, validated: self.validated, average_map: self.average_map };
        let snapshot = Snapshot::take(self.run, SavedStage::Train, &self.learner, Some(&self.store), facts)?;
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
