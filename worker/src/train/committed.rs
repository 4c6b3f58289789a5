//! A step from samples to committed weights: COUNT, the pure step, AGREE, MOVE. An error before MOVE leaves no trace.
//!
//! Takes: this rank's samples. Gives: what all ranks agreed on. Next: the memory, which gets the rows that [`Computed`] held.

use std::sync::Arc;

use burn::tensor::Device;
use longtake_shared::config::RunConfig;
use longtake_shared::ids::Step;
use longtake_shared::random::Key;

use super::agree::{Control, agree, digest};
use super::learner::{Learner, Moved};
use super::sample_ids::SampleIds;
use super::step::{FreshRows, LaneInput, Pending, Sample, StepContext, StepError, step};
use super::{TrainError, count};
use crate::collective::SharedCollective;
use crate::control::StepPhase;
use crate::loss::{Criterion, LabelledSegment, SampleTargets, local_normaliser};
use crate::model::detector::Detector;
use crate::model::heads::daotad::anchors::{AnchorGrid, level_lengths};
use crate::model::norm::{MomentsReducer, PendingStatistics, apply_statistics};
use crate::model::tcm::srm::TemporalReduction;
use crate::optim::Flat;

/// What steps need that does not change between them.
#[derive(Debug, Clone)]
pub struct StepSettings {
    config: Arc<RunConfig>,
    root: Key,
    device: Device,
    collective: SharedCollective,
    moments: Arc<dyn MomentsReducer>,
    criterion: Criterion,
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

impl StepSettings {
    /// For a run, a device and the ranks of a generation.
    pub fn new(
        config: Arc<RunConfig>,
        root: Key,
        device: Device,
        collective: SharedCollective,
        world: usize,
    ) -> Self {
        let model = &config.model;
        let criterion =
            Criterion::new(AnchorGrid::from_config(&model.neck.strides(), &model.head), &model.loss);
        let moments: Arc<dyn MomentsReducer> = Arc::new(collective.clone());
        Self { config, root, device, collective, moments, criterion, world }
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
        let targets = self.targets(inputs);
        let normaliser = count::agree(local_normaliser(&targets), &self.collective)?;
        let pending = self.pending(learner, inputs, &targets, normaliser, enter)?;
        self.collective.check()?;
        control.loss = pending.loss;
        control.class_loss = pending.class_loss;
        control.regression_loss = pending.regression_loss;
        control.positives = targets.iter().flatten().map(SampleTargets::positives).sum::<usize>() as f32;
        let samples = || inputs.iter().filter_map(|input| input.sample.as_ref());
        control.samples = samples().count() as f32;
        control.sample_ids = samples().map(|sample| SampleIds::of_window(&sample.plan)).sum();
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
            learner.module.detection = apply_statistics(detection, &statistics);
        }
        Ok(Committed { control, moved })
    }

    /// The pure part of a step: this rank's gradient, rows and statistics. Dropping the result leaves no trace.
    ///
    /// # Errors
    /// The window is longer than the model was built for, or the generation is over.
    pub(super) fn pending(
        &self,
        learner: &Learner<Detector>,
        inputs: &[LaneInput],
        targets: &[Option<SampleTargets>],
        normaliser: f32,
        enter: &dyn Fn(StepPhase),
    ) -> Result<Pending, StepError> {
        let context = StepContext {
            learner,
            config: &self.config,
            criterion: &self.criterion,
            targets,
            key: self.root.child("train", learner.step.0),
            normaliser,
            picture: [self.config.data.crop; 2],
            moments: Arc::clone(&self.moments),
            device: &self.device,
            goes_on: Some(&self.collective),
            enter,
        };
        step(&context, inputs)
    }

    /// What the anchors of each sample are to say. Padding takes part as in TALLFormer: all anchors of the window do.
    pub(super) fn targets(&self, inputs: &[LaneInput]) -> Vec<Option<SampleTargets>> {
        let config = &self.config;
        let rows = TemporalReduction::reduced_length(config.data.window_frames / 2);
        let positions = level_lengths(rows, config.model.neck.tdm_kernels.len() + 1);
        let of_sample = |sample: &Sample| {
            let actions: Vec<LabelledSegment> = sample
                .plan
                .actions
                .iter()
                .map(|action| LabelledSegment { segment: [action.start, action.end], label: action.label })
                .collect();
            self.criterion.targets(&positions, config.data.window_frames, &actions)
        };
        inputs.iter().map(|input| input.sample.as_ref().map(of_sample)).collect()
    }

    /// The digest of the parameters where one is due, so that ranks that differ are found.
    fn digest(&self, learner: &Learner<Detector>, now: Step) -> Option<[f32; 2]> {
        let every = self.config.cluster.digest_every;
        let due = every > 0 && now.0.is_multiple_of(every) && self.world > 1;
        due.then(|| digest(learner.tensors().into_iter().flat_map(|tensor| tensor.values)))
    }
}

fn trained_clips(inputs: &[LaneInput]) -> usize {
    let of_input = |input: &LaneInput| {
        input.sample.iter().flat_map(|sample| &sample.clips).filter(|clip| clip.trains).count()
    };
    inputs.iter().map(of_input).sum()
}
