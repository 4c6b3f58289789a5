//! Detections of a validation -> results.json and the report.

use std::path::PathBuf;

use longtake_shared::config::EvaluationConfig;
use longtake_shared::dataset::{Dataset, Subset};
use longtake_shared::hint::Failure;
use longtake_shared::ids::{Epoch, Step};
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
    fn epochs_before(&self, step: Step) -> Epoch {
        self.lanes.position(step).0
    }

    fn detections_of(&self, validation: &Validation) -> Result<Detections, Failure> {
        let mut detections = self.detections.clone();
        for (name, found) in &validation.detections {
            let video = detections.videos.iter().position(|video| video == name);
            let video = video.ok_or_else(|| {
                Failure::new(format!(
                    "a worker reports the video `{name}`, which is not in the validation subset"
                ))
            })? as u32;
            for item in found {
                if item.label as usize >= detections.labels.len() {
                    return Err(Failure::new(format!("a worker reports class {} in `{name}`", item.label)));
                }
                let (start, end, score) = (item.segment.start.0, item.segment.end.0, item.score);
                detections.items.push(Detection { video, label: item.label, start, end, score });
            }
        }
        Ok(detections)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use longtake_shared::dataset::{Action, Video};
    use longtake_shared::ids::VideoIndex;
    use longtake_shared::protocol;
    use longtake_shared::random::Key;
    use longtake_shared::units::{Seconds, TimeSegment};

    use super::*;

    fn dataset() -> Dataset {
        let action = Action { start: Seconds(1.0), end: Seconds(3.0), label: 0 };
        let video = |id: &str, subset| Video {
            id: id.into(),
            subset,
            path: format!("{id}.mp4").into(),
            duration: Seconds(10.0),
            actions: vec![action],
        };
        let videos =
            vec![video("a", Subset::Training), video("b", Subset::Training), video("c", Subset::Validation)];
        Dataset { classes: vec!["dive".into()], videos, remarks: Vec::new() }
    }

    fn judge(folder: &std::path::Path, best: Option<f64>) -> Judge {
        let dataset = dataset();
        let lanes = Lanes::deal(Key::root(0), 1, &[VideoIndex(0), VideoIndex(1)]).unwrap();
        Judge::new(&dataset, &EvaluationConfig::default(), lanes, folder.join("results.json"), best)
    }

    fn found(video: &str, label: u32) -> Validation {
        let detection = protocol::Detection {
            label,
            segment: TimeSegment { start: Seconds(1.0), end: Seconds(3.0) },
            score: 0.5,
        };
        Validation { step: Step(4), detections: BTreeMap::from([(video.to_owned(), vec![detection])]) }
    }

    #[test]
    fn a_validation_becomes_a_results_file_and_a_report() {
        let folder = tempfile::tempdir().unwrap();
        let report = judge(folder.path(), None).judge(&found("c", 0)).unwrap();
        assert_eq!((report.epoch, report.best), (Epoch(2), true));
        assert!((report.average_map - 1.0).abs() < 1e-12);
        let written = Detections::read(&folder.path().join("results.json")).unwrap();
        assert_eq!((written.videos, written.items.len()), (vec!["c".to_owned()], 1));
    }

    #[test]
    fn only_what_beats_the_run_so_far_is_best() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!judge(folder.path(), Some(1.0)).judge(&found("c", 0)).unwrap().best);
    }

    #[test]
    fn workers_cannot_report_what_is_not_in_the_data_set() {
        let folder = tempfile::tempdir().unwrap();
        let mut judge = judge(folder.path(), None);
        assert!(judge.judge(&found("a", 0)).unwrap_err().message.contains("`a`"));
        assert!(judge.judge(&found("c", 7)).unwrap_err().message.contains("class 7"));
        assert!(!folder.path().join("results.json").exists());
    }
}
