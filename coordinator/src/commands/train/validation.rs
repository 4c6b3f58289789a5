//! Detections of a validation -> results.json and the report.

use std::path::PathBuf;

use longtake_shared::config::EvaluationConfig;
use longtake_shared::dataset::{Dataset, Subset};
use longtake_shared::hint::Failure;
use longtake_shared::ids::Step;
use longtake_shared::lanes::Lanes;
use longtake_shared::metrics::{Detection, Detections, GroundTruth, Options, evaluate};

use crate::commands::files;
use crate::driver::{Report, Validation};

/// Judges the validations of one run.
pub(super) struct Judge {
    /// The names of videos and classes.
    pub(super) detections: Detections,
    /// What is true.
    pub(super) truth: GroundTruth,
    /// By which rules.
    pub(super) options: Options,
    /// Which epoch a step belongs to.
    pub(super) lanes: Lanes,
    /// Where the detections are written.
    pub(super) results: PathBuf,
    /// The best average mAP so far.
    pub(super) best: Option<f64>,
}

impl Judge {
    /// For a data set; `best` is what the run had reached before.
    pub(super) fn new(
        dataset: &Dataset,
        evaluation: &EvaluationConfig,
        lanes: Lanes,
        results: PathBuf,
        best: Option<f64>,
    ) -> Self {
        let truth = GroundTruth::of_dataset(dataset, Subset::Validation);
        let detections =
            Detections { videos: truth.videos.clone(), labels: dataset.classes.clone(), items: Vec::new() };
        Self { detections, truth, options: Options::of_config(evaluation), lanes, results, best }
    }

    /// Writes the results file, then the report.
    pub(super) fn judge(&mut self, validation: &Validation) -> Result<Report, Failure> {
        let mut detections = self.detections_of(validation)?;
        // The order of a results file decides between equal scores, so that file and memory give the same figures.
        detections.sort();
        files::write_whole(&self.results, detections.to_json().as_bytes())?;
        let report = evaluate(&self.truth, &detections, &self.options)?;
        let best = self.best.is_none_or(|best| report.average > best);
        if best {
            self.best = Some(report.average);
        }
        Ok(Report {
            epoch: self.epochs_before(validation.step),
            average_map: report.average,
            best,
            report: serde_json::to_value(&report)
                .map_err(|error| Failure::new(format!("the report has no JSON form: {error}")))?,
        })
    }

    /// Epochs that `step` steps have completed.
    fn epochs_before(&self, step: Step) -> longtake_shared::ids::Epoch {
        self.lanes.position(step).0
    }

    fn detections_of(&self, validation: &Validation) -> Result<Detections, Failure> {
        let mut detections = self.detections.clone();
        for (name, found) in &validation.detections {
            let video = detections.videos.iter().position(|video| video == name);
            let video = video.ok_or_else(|| {
                Failure::new(format!("a worker reports the video `{name}`, which is not in the validation subset"))
            })? as u32;
            for item in found {
                if item.label as usize >= detections.labels.len() {
                    return Err(Failure::new(format!("a worker reports class {} in `{name}`", item.label)));
                }
                let (start, end, score) = (item.start.0, item.end.0, item.score);
                detections.items.push(Detection { video, label: item.label, start, end, score });
            }
        }
        Ok(detections)
    }
}
