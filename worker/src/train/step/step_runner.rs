//! A step from samples to committed weights: COUNT, the pure step, AGREE, MOVE. An error before MOVE leaves no trace.
//!
//! Takes: this rank's samples. Gives: what all ranks agreed on. Next: the memory, which gets the rows that `Computed` held.

use std::sync::Arc;

use burn::tensor::Device;
use longtake_shared::config::RunConfig;
use longtake_shared::ids::Step;
use longtake_shared::random::Key;

use super::normaliser;
use crate::collective::SharedCollective;
use crate::control::StepPhase;
use crate::model::backbone::encoder::ClipEncoder;
use crate::model::detector::Detector;
use crate::model::norm::{MomentsReducer, PendingStatistics, apply_statistics};
use crate::model::truth::Truth;
use crate::optim::Flat;
use crate::tensors::NamedTensor;
use crate::train::TrainError;
use crate::train::step::gradient_sync::{Control, Terms, agree, digest};
use crate::train::step::learner::{Learner, Moved};
use crate::train::step::sample_fingerprint::SampleFingerprint;
use crate::train::step::{FreshRows, LaneInput, Pending, StepContext, StepError, step};

/// What steps need that does not change between them.
#[derive(Debug, Clone)]
pub struct StepRunner {
    config: Arc<RunConfig>,
    root: Key,
    device: Device,
    collective: SharedCollective,
    sums: Arc<dyn MomentsReducer>,
    world: usize,
}

/// What this rank brings to a step. Dropping it leaves no trace.
#[derive(Debug)]
pub struct Computed {
    gradients: Flat,
    statistics: Vec<PendingStatistics>,
    /// Rows to write back once the step is committed.
    pub rows: Vec<FreshRows>,
    control: Control,
}

/// What a committed step came to.
#[derive(Debug)]
pub struct Committed {
    /// Sums over all ranks.
    pub control: Control,
    /// What moving the weights did.
    pub moved: Moved,
}

impl StepRunner {
    /// For a run, a device and the ranks of a generation.
    pub fn new(
        config: Arc<RunConfig>,
        root: Key,
        device: Device,
        collective: SharedCollective,
        world: usize,
    ) -> Self {
        let sums: Arc<dyn MomentsReducer> = Arc::new(collective.clone());
        Self { config, root, device, collective, sums, world }
    }

    /// The first part of a step: everything that this rank computes for itself. `control` holds its flags and what recalling
    /// its samples counted, `enter` is told what comes next. Nothing has changed afterwards.
    ///
    /// # Errors
    /// The generation was aborted, or a window is longer than the model was built for.
    pub fn compute(
        &self,
        learner: &Learner<Detector>,
        inputs: &[LaneInput],
        mut control: Control,
        enter: &dyn Fn(StepPhase),
    ) -> Result<Computed, TrainError> {
        let truth = truth_of(inputs);
        let own = learner.module.detection.count(&truth);
        let normaliser = normaliser::agree(own, &self.collective)?;
        let pending = self.pending(learner, inputs, &truth, normaliser, enter)?;
        self.collective.check()?;
        control.loss = pending.loss;
        control.terms = Terms::of(&pending.terms);
        control.positives = pending.positives as f32;
        let samples = || inputs.iter().filter_map(|input| input.sample.as_ref());
        control.samples = samples().count() as f32;
        control.sample_fingerprint = samples().map(|sample| SampleFingerprint::of_window(&sample.plan)).sum();
        control.clips = trained_clips(inputs) as f32;
        Ok(Computed {
            gradients: pending.gradients,
            statistics: pending.statistics,
            rows: pending.rows,
            control,
        })
    }

    /// The second part: the ranks agree, and the weights move. An error before that leaves no trace.
    ///
    /// # Errors
    /// The generation was aborted, a device failed, or ranks hold different parameters.
    pub fn commit(
        &self,
        learner: &mut Learner<Detector>,
        computed: Computed,
        enter: &dyn Fn(StepPhase),
    ) -> Result<Committed, TrainError> {
        let now = learner.step;
        enter(StepPhase::Reduce);
        let Computed { gradients, statistics, mut control, .. } = computed;
        let own = self.digest(learner, now);
        control.digest = own.unwrap_or_default();
        let bucket = self.config.bucket_values();
        let (gradients, control) =
            agree(&self.collective, learner.layout(), gradients, control, bucket, &self.device)?;
        if own.is_some_and(|own| !control.digests_agree(own, self.world)) {
            return Err(TrainError::Diverged { step: now });
        }

        enter(StepPhase::Move);
        let moved = learner.advance(gradients, control.loss.is_finite())?;
        if moved.applied {
            let detection = learner.module.detection.clone();
            learner.module.detection = apply_statistics(detection, &statistics)?;
        }
        Ok(Committed { control, moved })
    }

    /// The pure part of a step: this rank's gradient, rows and statistics. Dropping the result leaves no trace.
    ///
    /// # Errors
    /// The window is longer than the model was built for, or the generation is over.
    pub(in crate::train) fn pending(
        &self,
        learner: &Learner<Detector>,
        inputs: &[LaneInput],
        truth: &[Option<Truth>],
        normaliser: f32,
        enter: &dyn Fn(StepPhase),
    ) -> Result<Pending, StepError> {
        let context = StepContext {
            learner,
            config: &self.config,
            truth,
            key: self.root.child("train", learner.step.0),
            normaliser,
            sums: &self.sums,
            encoder: ClipEncoder::new(&self.config.data, self.config.memory.chunk_clips, &self.device),
            goes_on: Some(&self.collective),
            enter,
        };
        step(&context, inputs)
    }

    /// The digest of the parameters where one is due, so that ranks that differ are found.
    fn digest(&self, learner: &Learner<Detector>, now: Step) -> Option<[f32; 2]> {
        let every = self.config.cluster.digest_every;
        let due = every > 0 && now.0.is_multiple_of(every) && self.world > 1;
        due.then(|| digest(learner.tensors().into_iter().filter_map(NamedTensor::into_f32).flatten()))
    }
}

/// What is annotated in each input's window; nothing for an idle lane.
pub(in crate::train) fn truth_of(inputs: &[LaneInput]) -> Vec<Option<Truth>> {
    inputs.iter().map(|input| input.sample.as_ref().map(|sample| sample.plan.truth.clone())).collect()
}

fn trained_clips(inputs: &[LaneInput]) -> usize {
    let of_input = |input: &LaneInput| {
        input.sample.iter().flat_map(|sample| &sample.clips).filter(|clip| clip.trains).count()
    };
    inputs.iter().map(of_input).sum()
}
