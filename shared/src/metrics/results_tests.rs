//! Results and ground truth as people have them, by the figures of an independent evaluator.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::EvaluationConfig;
use crate::dataset::{Finding, Mending};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/results").join(name)
}

/// As `longtake evaluate` computes it.
fn average(results: &str, truth: &str, tiou: &str) -> f64 {
    let detections = Detections::read(&file(results)).unwrap();
    let truth = GroundTruth::read(&file(truth), "validation", None).unwrap();
    let tiou = tiou.parse::<Thresholds>().unwrap().0;
    let options = Options::of_config(&EvaluationConfig { tiou, ..EvaluationConfig::default() });
    evaluate(&truth, &detections, &Options::activitynet(options.tiou)).unwrap().average
}

#[test]
fn ties_reversed_and_repeated_detections_have_the_published_protocols_average() {
    for (results, truth, tiou, expected) in [
        ("res_ties.json", "gt.json", "0.3:0.1:0.7", 0.233_630_988),
        ("res_ties.json", "gt.json", "0.5:0.05:0.95", 0.171_812_002),
        ("res_ties.json", "gt_test_odd.json", "0.3:0.1:0.7", 0.233_630_988),
        ("res_reversed.json", "gt.json", "0.3:0.1:0.7", 0.206_485_018),
        ("res_doubled.json", "gt.json", "0.3:0.1:0.7", 0.127_437_881),
    ] {
        let found = average(results, truth, tiou);
        assert!((found - expected).abs() < 5e-10, "{results} over {tiou}: {found}");
    }
}

#[test]
fn a_video_with_two_lists_of_detections_is_refused() {
    let error = Detections::read(&file("res_dupkeys.json")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("res_dupkeys.json` holds the video `vid_00` twice (line 1, column "), "{text}");
    assert!(error.hint().is_some());
    assert_eq!(error.exit(), ExitCode::NeverRestart);
}

#[test]
fn an_odd_entry_of_a_subset_that_is_not_judged_is_skipped_and_told() {
    let truth = GroundTruth::read(&file("gt_test_odd.json"), "validation", None).unwrap();
    let Finding::OddEntries { videos, .. } = &truth.remarks[0] else { panic!("{:?}", truth.remarks) };
    assert_eq!(videos, &["t1"]);
    assert!(truth.remarks[1].to_string().contains("`Diving`, `diving`"), "{:?}", truth.remarks);
    let error = GroundTruth::read(&file("gt_test_odd.json"), "testing", None).unwrap_err();
    assert!(error.to_string().contains("video `t1` of `"), "{error}");
    let error = GroundTruth::read(&file("gt.json"), "Validation", None).unwrap_err();
    assert_eq!(error.hint().unwrap(), "give `--subset` one of `training`, `validation`");
}

#[test]
fn python_results_are_read_with_what_is_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    let text = "\u{feff}{\"results\": {\"a\": [{\"label\": \"run\", \"score\": NaN, \"segment\": [1, 2]}, \
                {\"label\": \"run\", \"score\": \"0.5\", \"segment\": [1, Infinity]}]}}";
    std::fs::write(&path, text).unwrap();
    let detections = Detections::read(&path).unwrap();
    assert!(detections.items[0].score.is_nan());
    assert_eq!((detections.items[1].score, detections.items[1].end), (0.5, f64::INFINITY));
}

#[test]
fn annotations_are_told_of_what_no_detection_can_match() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.json");
    let text = r#"{"database": {"a": {"subset": "validation", "annotations": [{"label": "run", "segment": [NaN, 2]}]},
        "b": {"subset": "Validation"}, "c": {"subset": "validation", "annotations": [{"label": "Run", "segment": [1, 2]}]}}}"#;
    std::fs::write(&path, text).unwrap();
    let truth = GroundTruth::read(&path, "validation", None).unwrap();
    assert_eq!((truth.videos.len(), truth.actions.len()), (2, 2));
    assert!(
        matches!(
            &truth.remarks[..],
            [
                Finding::MixedSubset { .. },
                Finding::NearLabels { .. },
                Finding::Mended { what: Mending::Unmatchable, times: 1, .. }
            ]
        ),
        "{:?}",
        truth.remarks
    );
    std::fs::write(&path, text.replace("\"c\"", "\"a\"")).unwrap();
    let error = GroundTruth::read(&path, "validation", None).unwrap_err();
    assert!(error.to_string().contains("holds the video `a` twice"), "{error}");
    std::fs::write(&path, text.replace("\"run\"", "3")).unwrap();
    let error = GroundTruth::read(&path, "validation", None).unwrap_err();
    assert!(!error.hint().unwrap().contains("data."), "a command without settings names none");
}

#[test]
fn ground_truth_may_be_thumos14s_text_files() {
    let folder = tempfile::tempdir().unwrap();
    let annotation = folder.path().join("TH14_Temporal_annotations_test/annotation");
    std::fs::create_dir_all(&annotation).unwrap();
    std::fs::write(annotation.join("Diving_test.txt"), "video_test_0000004 1.0 2.0\n").unwrap();
    std::fs::write(annotation.join("Ambiguous_test.txt"), "video_test_0000004 5.0 6.0\n").unwrap();
    std::fs::write(annotation.join("Diving_val.txt"), "video_validation_0000001 1.0 2.0\n").unwrap();
    for subset in ["validation", "test", "Test"] {
        let truth = GroundTruth::read(folder.path(), subset, None).unwrap();
        assert_eq!(truth.videos, ["video_test_0000004"], "{subset}");
        assert_eq!((truth.classes.clone(), truth.actions.len()), (vec!["Diving".to_owned()], 1));
    }
    assert_eq!(GroundTruth::read(folder.path(), "val", None).unwrap().videos, ["video_validation_0000001"]);
    assert!(GroundTruth::read(folder.path(), "holdout", None).is_err());
}
