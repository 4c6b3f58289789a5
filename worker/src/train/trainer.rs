//! The loop: step, report, validate, save, obey. Everything a step needs is asked for here and nowhere else.

use std::time::Instant;

use burn::tensor::Device;
use longtake_shared::config::MemorySource;
use longtake_shared::ids::{Epoch, Step};
use longtake_shared::units::Seconds;

use super::agree::Control;
use super::committed::StepSettings;
use super::context::RunContext;
use super::learner::Learner;
use super::report::Reporter;
use super::save::{Saver, Snapshot};
use super::step::{FreshRows, InputClip, LaneInput, Sample};
use super::{TrainError, validate};
use crate::control::{Ending, Stage, StepPhase};
use crate::data::loader::{LoadedStep, Loader};
use crate::model::detector::Detector;
use crate::model::memory::{MemoryStore, RowState};

/// What was skipped so far; part of every checkpoint.
pub use longtake_shared::checkpoint::Counters;

/// The training stage of one generation.
#[derive(Debug)]
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
    pub saver: Saver<'a>,
    /// The step whose validation is done already, where a resumed run stopped after it.
    pub validated: Option<Step>,
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
    pub fn train(mut self) -> Result<Ending, TrainError> {
        let run = self.run;
        let total = run.total_steps();
        let mut reporter = Reporter::new(run, Stage::Train, total, self.learner.step.0);
        if self.due(self.learner.step, false).validation && self.validated != Some(self.learner.step) {
            self.validate()?;
        }
        let mut loader = run.loader(self.learner.step, Step(total));
        while self.learner.step.0 < total {
            let control = self.step(&mut loader, &mut reporter)?;
            let stop = control.stop > 0.0;
            let due = self.due(self.learner.step, control.checkpoint > 0.0);
            if due.validation && !stop {
                self.validate()?;
            }
            if due.checkpoint || stop {
                self.save()?;
            }
            if stop && self.learner.step.0 < total {
                self.saver.finish()?;
                return Ok(Ending::Stopped);
            }
        }
        self.saver.finish()?;
        Ok(Ending::Completed)
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
    fn step(&mut self, loader: &mut Loader, reporter: &mut Reporter<'_>) -> Result<Control, TrainError> {
        let session = &self.run.session;
        let now = self.learner.step;
        session.enter(now, StepPhase::Data);
        let started = Instant::now();
        let loaded = loader.next_step()?;
        let flags = session.flags();
        let mut control = Control {
            skipped: loaded.skipped() as f32,
            stop: f32::from(u8::from(flags.stop)),
            checkpoint: f32::from(u8::from(flags.checkpoint)),
            ..Control::default()
        };
        let inputs = self.recall(loader, loaded, &mut control)?;
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
    fn recall(
        &self,
        loader: &Loader,
        loaded: LoadedStep,
        control: &mut Control,
    ) -> Result<Vec<LaneInput>, TrainError> {
        let now = self.learner.step;
        let rows_of_clip = self.run.config.data.clip_frames / 2;
        let channels = self.run.config.model.backbone.channels();
        let mut inputs = Vec::with_capacity(loaded.lanes.len());
        for lane in loaded.lanes {
            let Some(loaded) = lane.sample else {
                inputs.push(LaneInput { lane: lane.lane, sample: None });
                continue;
            };
            let plan = loaded.plan;
            let mut clips: Vec<InputClip> = loaded
                .clips
                .into_iter()
                .map(|(clip, pixels)| InputClip { clip, pixels, trains: true })
                .collect();
            let rows = plan.clips * rows_of_clip;
            let mut remembered = vec![0.0; rows * channels];
            if self.run.config.memory.source == MemorySource::Remembered && clips.len() < plan.clips {
                let window = self.store.read(lane.lane, plan.video, plan.first_row(), rows)?;
                for clip in (0..plan.clips).filter(|clip| !plan.sampled.contains(clip)) {
                    let states = &window.state[clip * rows_of_clip..(clip + 1) * rows_of_clip];
                    if states.contains(&RowState::Absent) {
                        control.absent_rows += rows_of_clip as f32;
                        clips.push(InputClip { clip, pixels: loader.clip(&plan, clip)?, trains: false });
                    } else {
                        for state in states {
                            if let RowState::Remembered { written } = state {
                                control.age_sum += now.0.saturating_sub(written.0) as f32;
                                control.age_count += 1.0;
                            }
                        }
                    }
                }
                remembered = window.values;
            }
            inputs.push(LaneInput { lane: lane.lane, sample: Some(Sample { plan, clips, remembered }) });
        }
        Ok(inputs)
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
            return Err(TrainError::NotFinite { step: self.learner.step, in_a_row: self.counters.non_finite_in_a_row });
        }
        Ok(())
    }

    /// Fresh features replace the remembered rows: the last act of a committed step.
    fn write_back(&mut self, inputs: &[LaneInput], rows: Vec<FreshRows>) -> Result<(), TrainError> {
        if !self.run.config.memory.write_back || self.run.config.memory.source == MemorySource::Zeros {
            return Ok(());
        }
        let rows_of_clip = (self.run.config.data.clip_frames / 2) as i64;
        for fresh in rows {
            let input = &inputs[fresh.input];
            let Some(sample) = &input.sample else { continue };
            let first = sample.plan.first_row() + fresh.clip as i64 * rows_of_clip;
            self.store.write(input.lane, sample.plan.video, self.learner.step, first, &fresh.values)?;
        }
        Ok(())
    }

    fn validate(&mut self) -> Result<(), TrainError> {
        self.run.session.enter(self.learner.step, StepPhase::Validate);
        if validate::validate(self.run, &self.learner.module, self.learner.step)? {
            self.validated = Some(self.learner.step);
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), TrainError> {
        self.run.session.enter(self.learner.step, StepPhase::Save);
        let snapshot = Snapshot::of(self.run, Stage::Train, &self.learner, Some(&mut self.store), self.counters)?
            .validated(self.validated);
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
