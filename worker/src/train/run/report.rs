//! Numbers for whoever watches: rank 0 speaks for all where every number is a sum over ranks; where ranks share videos, each
//! tells how many of them it has done.

use std::collections::BTreeMap;
use std::time::Instant;

use longtake_shared::ids::Rank;
use longtake_shared::units::Seconds;

use crate::control::{Progress, Stage};
use crate::train::run::context::RunContext;
use crate::train::step::gradient_sync::Control;
use crate::train::step::learner::Moved;
use longtake_shared::checkpoint::Counters;

/// The numbers of a step, the same on every rank. One rank tells them; where that one is lost, or was aborted before it
/// could, another does.
#[derive(Debug, Clone, PartialEq)]
pub struct StepNumbers {
    /// The numbers.
    pub progress: Progress,
    /// Whether this worker has told them.
    pub told: bool,
}

/// Tells how far a stage has come.
pub struct Reporter<'a> {
    run: &'a RunContext,
    stage: Stage,
    total: u64,
    done: u64,
    started: Instant,
}

impl<'a> Reporter<'a> {
    /// A stage of `total` units over all ranks, of which `done` are done by this one.
    pub fn new(run: &'a RunContext, stage: Stage, total: u64, done: u64) -> Self {
        let reporter = Self { run, stage, total, done, started: Instant::now() };
        reporter.send(None, BTreeMap::new());
        reporter
    }

    /// One more unit of a stage that has no loss.
    pub fn unit(&mut self) {
        self.done += 1;
        self.send(None, BTreeMap::new());
    }

    /// One more step, with what all ranks agreed on and the names of the parts of its loss. Gives its numbers, and whether this
    /// rank has reported them.
    pub fn step(
        &mut self,
        control: &Control,
        terms: &[&str],
        moved: &Moved,
        counters: &Counters,
        took: Seconds,
    ) -> StepNumbers {
        self.done += 1;
        let mut numbers = BTreeMap::from([
            ("gradient_norm".to_owned(), moved.gradient_norm),
            ("learning_rate".to_owned(), moved.learning_rate),
            ("clips_per_second".to_owned(), f64::from(control.clips) / took.0.max(1e-9)),
            ("positives".to_owned(), f64::from(control.positives)),
            ("samples".to_owned(), f64::from(control.samples)),
            ("sample_ids".to_owned(), control.sample_fingerprint.number()),
            ("skipped_samples".to_owned(), counters.skipped_samples as f64),
            ("damaged_videos".to_owned(), self.run.place.damage.count() as f64),
            ("non_finite".to_owned(), counters.non_finite_steps as f64),
        ]);
        if self.stage == Stage::Train {
            for (name, term) in terms.iter().zip(control.terms.0) {
                numbers.insert((*name).to_owned(), f64::from(term));
            }
            numbers.insert("absent_rows".to_owned(), f64::from(control.absent_rows));
            numbers.insert("damaged_rows".to_owned(), f64::from(control.damaged_rows));
            if control.age_count > 0.0 {
                numbers.insert("mean_age".to_owned(), f64::from(control.age_sum / control.age_count));
            }
        }
        numbers.retain(|_, value| value.is_finite());
        self.send(Some(f64::from(control.loss)).filter(|loss| loss.is_finite()), numbers)
    }

    /// Tells the numbers of the step that the generation began with, unless this worker has.
    pub fn again(&self, newest: &mut StepNumbers) {
        if self.run.assignment.rank == Rank(0) && newest.progress.done == self.done && !newest.told {
            self.run.session.progress(self.run.assignment.generation, &newest.progress);
            newest.told = true;
        }
    }

    fn send(&self, loss: Option<f64>, numbers: BTreeMap<String, f64>) -> StepNumbers {
        let epoch = match self.stage {
            Stage::Train => {
                self.run.place.lanes.position(longtake_shared::ids::Step(self.done.saturating_sub(1))).0
            }
            _ => longtake_shared::ids::Epoch(0),
        };
        let progress = Progress {
            stage: self.stage,
            done: self.done,
            total: self.total,
            epoch,
            loss,
            numbers,
            elapsed: Seconds(self.started.elapsed().as_secs_f64()),
        };
        let told = self.run.assignment.rank == Rank(0) || self.stage.is_shared_out();
        if told {
            self.run.session.progress(self.run.assignment.generation, &progress);
        }
        StepNumbers { progress, told }
    }
}
