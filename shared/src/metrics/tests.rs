//! Against the published evaluators' figures, worked examples, and a slow oracle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::config::DisputedVideos;
use crate::hint::Hint as _;

fn truth_of(actions: &[(u32, f64, f64)]) -> GroundTruth {
    labelled_truth(&actions.iter().map(|(video, start, end)| (*video, 0, *start, *end)).collect::<Vec<_>>())
}

fn labelled_truth(actions: &[(u32, u32, f64, f64)]) -> GroundTruth {
    let videos = actions.iter().map(|action| action.0 + 1).max().unwrap_or(0);
    let classes = actions.iter().map(|action| action.1 + 1).max().unwrap_or(0);
    GroundTruth {
        videos: (0..videos).map(|video| format!("video{video}")).collect(),
        classes: (0..classes).map(|class| format!("class{class}")).collect(),
        actions: actions
            .iter()
            .map(|(video, label, start, end)| Interval {
                video: *video,
                label: *label,
                start: *start,
                end: *end,
            })
            .collect(),
        numbers: BTreeMap::new(),
        remarks: Vec::new(),
    }
}

fn found_in(items: &[(u32, f64, f64, f64)]) -> Detections {
    labelled(&items.iter().map(|(v, start, end, score)| (*v, 0, *start, *end, *score)).collect::<Vec<_>>())
}

fn labelled(items: &[(u32, u32, f64, f64, f64)]) -> Detections {
    let items: Vec<Detection> = items
        .iter()
        .map(|(video, label, start, end, score)| Detection {
            video: *video,
            label: *label,
            start: *start,
            end: *end,
            score: *score,
        })
        .collect();
    let videos = items.iter().map(|item| item.video + 1).max().unwrap_or(0);
    let labels = items.iter().map(|item| item.label + 1).max().unwrap_or(0);
    Detections {
        videos: (0..videos).map(|video| format!("video{video}")).collect(),
        labels: (0..labels).map(|label| format!("class{label}")).collect(),
        items,
    }
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
    }
}

fn check_a(scores: [f64; 6]) -> (GroundTruth, Detections) {
    let truth = truth_of(&[(0, 0.0, 10.0), (0, 21.0, 29.0), (1, 6.0, 14.0)]);
    let spans =
        [(0, 0.0, 10.0), (0, 1.0, 9.0), (0, 20.0, 30.0), (1, 5.0, 15.0), (1, 40.0, 50.0), (2, 0.0, 5.0)];
    let items: Vec<_> =
        spans.iter().zip(scores).map(|((video, start, end), score)| (*video, *start, *end, score)).collect();
    (truth, found_in(&items))
}

const SCORES_A: [f64; 6] = [0.9, 0.8, 0.7, 0.95, 0.6, 0.99];

fn check_b() -> (GroundTruth, Detections) {
    let truth = truth_of(&[(0, 0.0, 10.0), (0, 20.0, 30.0), (1, 5.0, 8.0)]);
    let items = [
        (0, 0.0, 10.0, 0.9),
        (0, 1.0, 10.0, 0.8),
        (0, 0.5, 9.0, 0.7),
        (0, 20.0, 28.0, 0.6),
        (0, 40.0, 50.0, 0.95),
        (1, 0.0, 3.0, 0.5),
        (1, 5.0, 9.0, 0.4),
    ];
    (truth, found_in(&items))
}

#[test]
fn worked_example_a() {
    let (truth, detections) = check_a(SCORES_A);
    let options = Options::new(vec![0.5, 0.7, 0.75, 0.79, 0.85, 0.95]);
    let report = evaluate(&truth, &detections, &options).unwrap();
    close(&report.map, &[0.644_444_4, 0.644_444_4, 0.644_444_4, 0.644_444_4, 0.111_111_1, 0.111_111_1], 1e-7);
    assert_eq!(report.counts.in_unknown_videos, 1);

    let (truth, detections) = check_a([0.9; 6]);
    let report = evaluate(&truth, &detections, &Options::new(vec![0.5, 0.85])).unwrap();
    close(&report.map, &[0.6, 0.055_555_6], 1e-7);
}

#[test]
fn worked_example_a_by_vedatads_rules() {
    let (truth, detections) = check_a(SCORES_A);
    let report = evaluate(&truth, &detections, &Options::vedatad(vec![0.5, 0.7, 0.85])).unwrap();
    close(&report.map, &[0.916_666_7, 0.916_666_7, 0.166_666_7], 1e-6);
}

#[test]
fn worked_example_b() {
    let (truth, detections) = check_b();
    let options = Options::new(vec![0.5, 0.7, 0.8]);
    let report = evaluate(&truth, &detections, &options).unwrap();
    close(&report.map, &[0.452_381, 0.452_381, 0.3], 1e-6);
    for (k, expected) in [(1, [1.0, 1.0, 1.0]), (2, [2.0, 2.0, 1.0]), (5, [3.0, 3.0, 2.0])] {
        let recall = top_kx_recall(&truth, &detections, &options, k).unwrap();
        close(&recall, &expected.map(|found| found / 3.0), 1e-9);
    }
}

#[test]
fn a_class_that_no_video_shows_is_ignored_and_counted() {
    // Spec 60, section 7: with colliding class numbers other evaluators give 1.0 here.
    let truth = GroundTruth {
        classes: vec!["open".into(), "close".into()],
        ..labelled_truth(&[(0, 0, 0.0, 10.0), (0, 1, 20.0, 30.0)])
    };
    let detections = Detections {
        labels: vec!["open".into(), "wash".into()],
        ..labelled(&[(0, 0, 0.0, 10.0, 0.9), (0, 1, 20.0, 30.0, 0.8)])
    };
    let report = evaluate(&truth, &detections, &Options::new(vec![0.5])).unwrap();
    close(&report.map, &[0.5], 1e-12);
    assert_eq!(report.counts.unknown_labels, ["wash"]);
    assert_eq!((report.counts.of_unknown_labels, report.counts.classes_without_predictions), (1, 1));
}

/// The worked example of spec 60, section 7: classes 0 and 2 happen, and a detection names class 1.
#[test]
fn labels_collide_only_where_that_is_asked_for() {
    let truth = GroundTruth {
        classes: vec!["open".into(), "close".into()],
        numbers: BTreeMap::from([("open".into(), 0), ("wash".into(), 1), ("close".into(), 2)]),
        ..labelled_truth(&[(0, 0, 0.0, 10.0), (0, 1, 20.0, 30.0)])
    };
    let found = |labels: [&str; 2]| Detections {
        labels: labels.map(str::to_owned).to_vec(),
        ..labelled(&[(0, 0, 0.0, 10.0, 0.9), (0, 1, 20.0, 30.0, 0.8)])
    };
    let by_name = Options::new(vec![0.5]);
    let colliding = Options { labels: Labels::Colliding, ..by_name.clone() };
    let average = |truth: &GroundTruth, options: &Options, labels| {
        evaluate(truth, &found(labels), options).unwrap().average
    };
    close(&[average(&truth, &by_name, ["open", "wash"])], &[0.5], 1e-12);
    close(&[average(&truth, &colliding, ["open", "wash"])], &[1.0], 1e-12);
    close(&[average(&truth, &colliding, ["open", "close"])], &[1.0], 1e-12);
    // Names that are numbers need no list; without either nothing collides.
    let numbers =
        GroundTruth { classes: vec!["0".into(), "2".into()], numbers: BTreeMap::new(), ..truth.clone() };
    close(&[average(&numbers, &colliding, ["0", "1"])], &[1.0], 1e-12);
    let names = GroundTruth { numbers: BTreeMap::new(), ..truth.clone() };
    close(&[average(&names, &colliding, ["open", "wash"])], &[0.5], 1e-12);
}

#[test]
fn class_numbers_of_every_subset_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("annotations.json");
    let text = r#"{"database": {
        "a": {"subset": "training", "annotations": [{"label": "wash", "label_id": 1, "segment": [0, 1]}]},
        "b": {"subset": "validation", "annotations": [{"label": "open", "label_id": 0, "segment": [0, 1]}]}}}"#;
    std::fs::write(&path, text).unwrap();
    let truth = GroundTruth::read(&path, "validation", None).unwrap();
    assert_eq!(truth.numbers, BTreeMap::from([("open".to_owned(), 0), ("wash".to_owned(), 1)]));
}

#[test]
fn disputed_videos_of_thumos14_are_left_out_with_their_detections_unless_kept() {
    let mut truth = truth_of(&[(0, 0.0, 10.0), (1, 0.0, 10.0), (2, 0.0, 10.0)]);
    truth.videos =
        ["video_test_0000004", "video_test_0000270", "video_test_0000308"].map(str::to_owned).to_vec();
    let mut detections = found_in(&[(0, 0.0, 10.0, 0.5), (1, 50.0, 60.0, 0.9), (2, 0.0, 10.0, 0.4)]);
    detections.videos.clone_from(&truth.videos);
    let said = |report: &Report| report.rules.iter().find(|rule| rule.contains("THUMOS14")).cloned();
    let dropped = evaluate(&truth, &detections, &Options::new(vec![0.5])).unwrap();
    assert_eq!((dropped.average, dropped.counts.videos, dropped.counts.predictions), (1.0, 2, 2));
    assert!(said(&dropped).unwrap().ends_with("left out"));
    let options = Options { disputed_videos: DisputedVideos::Kept, ..Options::new(vec![0.5]) };
    let kept = evaluate(&truth, &detections, &options).unwrap();
    assert_eq!((kept.counts.videos, kept.counts.predictions), (3, 3));
    assert!(kept.average < 0.5 && said(&kept).unwrap().ends_with("count"));
    let (others, found) = check_b();
    assert_eq!(said(&evaluate(&others, &found, &options).unwrap()), None, "no other data set has them");
}

#[test]
fn rounding_makes_ties_and_moves_ends() {
    let truth = truth_of(&[(0, 0.0, 10.0), (0, 20.0, 30.0)]);
    // To 4 decimals both scores are 0.5, and then the later detection comes first.
    let detections = found_in(&[(0, 0.0, 10.0, 0.500_04), (0, 40.0, 50.0, 0.500_01)]);
    let map = |rounding, detections: &Detections| {
        evaluate(&truth, detections, &Options { rounding, ..Options::new(vec![0.98]) }).unwrap().average
    };
    close(&[map(Rounding::Off, &detections), map(Rounding::Opentad, &detections)], &[0.5, 0.25], 1e-12);
    close(&[map(Rounding::Gtad, &detections)], &[0.5], 1e-12);
    // 0 to 9.76 s overlaps by 0.976; rounded to 0.1 s by 0.98.
    let detections = found_in(&[(0, 0.0, 9.76, 0.9)]);
    close(&[map(Rounding::Opentad, &detections), map(Rounding::Gtad, &detections)], &[0.0, 0.5], 1e-12);
}

/// Check B of spec 60, section 9, with three proposals a video at most.
#[test]
fn average_recall_is_that_of_the_worked_example() {
    let (truth, detections) = check_b();
    let recall = average_recall(&truth, &detections, &Options::new(vec![0.5]), 3).unwrap();
    close(&recall.at, &[0.0, 1.0 / 3.0, 1.0 / 3.0], 1e-9);
    close(&[recall.area], &[1.0 / 6.0], 1e-9);
    let none = average_recall(&truth, &Detections::default(), &Options::new(vec![0.5]), 100).unwrap();
    assert_eq!((none.at.len(), none.area), (100, 0.0));
}

#[test]
fn intervals_without_length_match_nothing() {
    let truth = truth_of(&[(0, 5.0, 5.0), (0, 0.0, 10.0)]);
    let report = evaluate(&truth, &found_in(&[(0, 5.0, 5.0, 0.9)]), &Options::new(vec![0.5])).unwrap();
    close(&report.map, &[0.0], 0.0);
    assert_eq!(report.per_class[0].ground_truth, 2);
    let cleaned = evaluate(&truth, &found_in(&[]), &Options::opentad(vec![0.5])).unwrap();
    assert_eq!((cleaned.per_class[0].ground_truth, cleaned.counts.cleaned), (1, 1));
}

#[test]
fn without_detections_the_map_is_zero_and_without_ground_truth_there_is_none() {
    let truth = truth_of(&[(0, 0.0, 10.0)]);
    let report = evaluate(&truth, &Detections::default(), &Options::new(vec![0.5])).unwrap();
    assert_eq!((report.average, report.counts.classes_without_predictions), (0.0, 1));
    let none = evaluate(&GroundTruth::default(), &Detections::default(), &Options::new(vec![0.5]));
    assert!(matches!(none, Err(MetricsError::NoGroundTruth)));
    assert!(matches!(
        evaluate(&truth, &found_in(&[]), &Options::new(vec![])),
        Err(MetricsError::NoThreshold)
    ));
}

#[test]
fn detections_that_are_not_finite_are_dropped_and_counted() {
    let truth = truth_of(&[(0, 0.0, 10.0)]);
    let detections = found_in(&[(0, 0.0, 10.0, 0.1), (0, 0.0, 10.0, f64::NAN), (0, f64::INFINITY, 1.0, 0.5)]);
    let report = evaluate(&truth, &detections, &Options::new(vec![0.5])).unwrap();
    close(&report.map, &[1.0], 0.0);
    assert_eq!(report.counts.not_finite, 2);
}

#[test]
fn a_repeated_file_has_more_false_positives() {
    let (truth, detections) = check_b();
    let mut twice = detections.clone();
    twice.items.extend(detections.items.iter().copied());
    let options = Options::new(vec![0.5]);
    let (once, twice) =
        (evaluate(&truth, &detections, &options).unwrap(), evaluate(&truth, &twice, &options).unwrap());
    assert!(twice.average < once.average);
    assert_eq!(twice.counts.predictions, 2 * once.counts.predictions);
}

#[test]
fn evenly_spaced_thresholds_are_those_of_the_official_evaluator() {
    assert_eq!(thresholds(0.3, 0.7, 5), [0.3, 0.399_999_999_999_999_97, 0.5, 0.6, 0.7]);
    let config = crate::config::EvaluationConfig::default();
    assert_eq!(Options::of_config(&config).tiou, thresholds(0.3, 0.7, 5));
    let uneven = crate::config::EvaluationConfig { tiou: vec![0.5, 0.75, 0.95], ..config };
    assert_eq!(Options::of_config(&uneven).tiou, [0.5, 0.75, 0.95]);
    assert_eq!(thresholds(0.5, 0.5, 1), [0.5]);
}

#[test]
fn in_the_wrong_videos_perfect_detections_are_worth_nothing() {
    let actions: Vec<_> =
        (0..9u32).map(|video| (video, f64::from(video) * 10.0, f64::from(video) * 10.0 + 5.0)).collect();
    let items: Vec<_> = actions.iter().map(|(video, start, end)| (*video, *start, *end, 0.9)).collect();
    let (truth, detections) = (truth_of(&actions), found_in(&items));
    let options = Options::new(vec![0.5]);
    close(&[evaluate(&truth, &detections, &options).unwrap().average], &[1.0], 1e-12);
    for seed in 0..20 {
        assert_eq!(Report::shuffled_baseline(&truth, &detections, &options, seed).unwrap(), Some(0.0));
    }
    let alone = truth_of(&[(0, 0.0, 5.0)]);
    assert_eq!(Report::shuffled_baseline(&alone, &detections, &options, 0).unwrap(), None);
}

#[test]
fn the_table_is_aligned_and_the_notes_say_the_rules() {
    let (truth, detections) = check_b();
    let report = evaluate(&truth, &detections, &Options::new(vec![0.5, 0.8])).unwrap();
    let table = report.table();
    assert_eq!(
        table,
        "class   actual   found   0.50   0.80   mean\n\
         class0       3       7   45.2   30.0   37.6\n\
         mAP %        3       7   45.2   30.0   37.6\n"
    );
    let notes = report.notes();
    assert_eq!(notes[0], "2 videos, 3 actions, 3.5 detections a video (at most 5)");
    assert!(notes.iter().any(|note| note.contains("the later one counts first")));
    let stored: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(stored, report);
}

#[test]
fn a_results_file_is_the_same_for_the_same_detections_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    let mut detections = labelled(&[(1, 0, 1.0, 2.0, 0.25), (0, 1, 3.5, 4.0, 0.5), (0, 0, 0.1, 0.3, 0.5)]);
    detections.write(&path).unwrap();
    let mut turned = detections.clone();
    turned.items.reverse();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), turned.to_json());
    let read = Detections::read(&path).unwrap();
    assert_eq!(read.to_json(), detections.to_json());
    detections.sort();
    let items: Vec<_> = read.items.iter().map(|item| (item.start, item.end, item.score)).collect();
    let expected: Vec<_> = detections.items.iter().map(|item| (item.start, item.end, item.score)).collect();
    assert_eq!(items, expected);
}

#[test]
fn other_spellings_of_results_are_read_and_wrong_ones_explained() {
    let folder = tempfile::tempdir().unwrap();
    let read = |text: &str| {
        let path = folder.path().join("results.json");
        std::fs::write(&path, text).unwrap();
        Detections::read(&path)
    };
    let other = r#"{"database": {"a": [{"label": "run", "scores": 0.5, "segment": [1, 2]}]}}"#;
    assert_eq!(read(other).unwrap().items.len(), 1);
    for (text, part) in [
        ("[]", "results"),
        (r#"{"results": {"a": 3}}"#, "video `a` has no list"),
        (
            r#"{"results": {"a": [{"label": "run", "segment": [1, 2]}]}}"#,
            "video `a`, detection 0: missing field `score`",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_subset_without_videos_is_refused_with_the_subsets_there_are() {
    let error = GroundTruth::read(&case("eval_tiny").join("ground_truth.json"), "test", None).unwrap_err();
    assert!(error.to_string().contains("`test`"), "{error}");
    assert!(error.hint().unwrap().contains("`validation`"));
}

#[test]
fn blocked_videos_are_neither_ground_truth_nor_forgiven() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocked.json");
    std::fs::write(&path, r#"["0000"]"#).unwrap();
    let file = case("eval_tiny").join("ground_truth.json");
    let all = GroundTruth::read(&file, "validation", None).unwrap();
    let fewer = GroundTruth::read(&file, "validation", Some(&path)).unwrap();
    assert_eq!(fewer.videos.len() + 1, all.videos.len());
    assert!(!fewer.videos.contains(&"v_0000".to_owned()));
}

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/cases").join(name)
}

/// The rules of an evaluator as the golden cases name it; `None` where ties make its figures unreproducible.
fn rules_of(evaluator: &str, tiou: Vec<f64>, ties_matter: bool) -> Option<Options> {
    let (base, ties) = if let Some(base) = evaluator.strip_suffix("_ties_last_first") {
        (base, TieOrder::LaterFirst)
    } else if let Some(base) = evaluator.strip_suffix("_ties_file_order") {
        (base, TieOrder::EarlierFirst)
    } else if ties_matter {
        return None;
    } else {
        (evaluator, TieOrder::LaterFirst)
    };
    let options = match base {
        "activitynet" => Options::activitynet(tiou),
        "opentad" => Options::opentad(tiou),
        "tallformer_afsd" => Options::afsd(tiou),
        "tallformer_vedatad_eval_map" => Options::vedatad(tiou),
        other => panic!("unknown evaluator {other}"),
    };
    Some(Options { ties, ..options })
}

fn floats(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn agrees(name: &str) {
    const TOLERANCE: f64 = 1e-9;
    let folder = case(name);
    let expected: Json =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let subset = expected["subset"].as_str().unwrap();
    let truth = GroundTruth::read(&folder.join("ground_truth.json"), subset, None).unwrap();
    let detections = Detections::read(&folder.join("predictions.json")).unwrap();
    let mut compared = 0;
    for by_evaluator in expected["expected"].as_object().unwrap().values() {
        let tiou = floats(&by_evaluator["tious"]);
        assert_eq!(tiou, thresholds(tiou[0], tiou[tiou.len() - 1], tiou.len()));
        for (evaluator, figures) in by_evaluator.as_object().unwrap() {
            if evaluator == "tious" {
                continue;
            }
            let Some(options) = rules_of(evaluator, tiou.clone(), name == "eval_ties") else { continue };
            let report = evaluate(&truth, &detections, &options).unwrap();
            if let Some(error) = figures.get("error") {
                let label = &report.counts.unknown_labels[0];
                assert_eq!(error.as_str().unwrap(), format!("KeyError: '{label}'"));
                continue;
            }
            close(&report.map, &floats(&figures["mAP"]), TOLERANCE);
            close(&[report.average], &[figures["average_mAP"].as_f64().unwrap()], TOLERANCE);
            let ap: BTreeMap<&str, &Vec<f64>> =
                report.per_class.iter().map(|class| (class.name.as_str(), &class.ap)).collect();
            assert_eq!(ap.len(), figures["ap"].as_object().unwrap().len());
            for (class, values) in figures["ap"].as_object().unwrap() {
                close(ap[class.as_str()], &floats(values), TOLERANCE);
            }
            if let Some(count) = figures.get("num_gt") {
                assert_eq!(count.as_u64().unwrap() as usize, report.counts.ground_truth, "{evaluator}");
            }
            compared += 1;
        }
    }
    assert!(compared >= 10, "only {compared} figures of {name}");
}

#[test]
fn golden_eval_tiny() {
    agrees("eval_tiny");
}

#[test]
fn golden_eval_ties() {
    agrees("eval_ties");
}

#[test]
fn golden_eval_medium() {
    agrees("eval_medium_200x50x20");
}

#[test]
fn golden_eval_class_without_gt() {
    agrees("eval_class_without_gt");
}

#[test]
fn golden_eval_empty_predictions() {
    agrees("eval_empty_predictions");
}

#[test]
fn golden_eval_unknown_videos() {
    agrees("eval_unknown_videos");
}

/// The protocol as its steps are written (spec 60, section 6), in no hurry.
fn oracle(truth: &GroundTruth, detections: &Detections, threshold: f64) -> f64 {
    let mut sum = 0.0;
    for class in 0..truth.classes.len() as u32 {
        let actions: Vec<&Interval> = truth.actions.iter().filter(|action| action.label == class).collect();
        let mut items: Vec<&Detection> = detections.items.iter().filter(|item| item.label == class).collect();
        items.sort_by(|a, b| a.score.partial_cmp(&b.score).unwrap());
        items.reverse();
        let mut taken = vec![false; actions.len()];
        let (mut precision, mut recall) = (vec![0.0], vec![0.0]);
        let mut right = 0.0;
        for (place, item) in items.iter().enumerate() {
            let mut candidates: Vec<(f64, usize)> = Vec::new();
            for (index, action) in actions.iter().enumerate().filter(|(_, action)| action.video == item.video)
            {
                let shared = (item.end.min(action.end) - item.start.max(action.start)).max(0.0);
                let union = (item.end - item.start) + (action.end - action.start) - shared;
                candidates.push((shared / union.max(1e-8), index));
            }
            candidates.sort_by(|a, b| b.partial_cmp(a).unwrap());
            if let Some((_, index)) =
                candidates.iter().find(|(tiou, index)| *tiou >= threshold && !taken[*index])
            {
                taken[*index] = true;
                right += 1.0;
            }
            precision.push(right / (place as f64 + 1.0));
            recall.push(right / actions.len() as f64);
        }
        precision.push(0.0);
        recall.push(1.0);
        for place in (0..precision.len() - 1).rev() {
            precision[place] = f64::max(precision[place], precision[place + 1]);
        }
        sum += (1..recall.len()).map(|i| (recall[i] - recall[i - 1]) * precision[i]).sum::<f64>();
    }
    sum / truth.classes.len() as f64
}

/// Times on a grid of quarters and few scores, so that ties of both happen.
fn span() -> impl Strategy<Value = (f64, f64)> {
    (0u32..40, 1u32..12).prop_map(|(start, length)| (f64::from(start) / 4.0, f64::from(start + length) / 4.0))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_slow_oracle(
        actions in prop::collection::vec((0u32..4, 0u32..3, span()), 1..25),
        items in prop::collection::vec((0u32..4, 0u32..3, span(), 0u32..30), 0..60),
    ) {
        let mut actions: Vec<_> = actions.into_iter().map(|(v, l, (start, end))| (v, l, start, end)).collect();
        actions.extend([(0, 0, 0.0, 1.0), (1, 1, 0.0, 1.0), (2, 2, 0.0, 1.0), (3, 0, 0.0, 1.0)]);
        let items: Vec<_> =
            items.into_iter().map(|(v, l, (start, end), score)| (v, l, start, end, f64::from(score))).collect();
        let (truth, detections) = (labelled_truth(&actions), labelled(&items));
        let tiou = vec![0.1, 0.3, 0.5, 0.75];
        let report = evaluate(&truth, &detections, &Options::new(tiou.clone())).unwrap();
        for (found, threshold) in report.map.iter().zip(tiou) {
            prop_assert!((found - oracle(&truth, &detections, threshold)).abs() < 1e-12);
        }
    }

    #[test]
    fn the_order_of_a_file_does_not_matter_where_scores_differ(
        spans in prop::collection::vec((0u32..3, 0u32..2, span()), 1..40).prop_shuffle(),
        seed in 0u64..1000,
    ) {
        use rand::seq::SliceRandom as _;
        let truth = labelled_truth(&[(0, 0, 0.0, 2.0), (1, 1, 1.0, 4.0), (2, 0, 3.0, 6.0), (2, 1, 0.0, 9.0)]);
        let items: Vec<_> = spans
            .iter()
            .enumerate()
            .map(|(place, (v, l, (start, end)))| (*v, *l, *start, *end, place as f64))
            .collect();
        let detections = labelled(&items);
        let mut turned = detections.clone();
        turned.items.shuffle(&mut crate::random::Key::root(seed).rng());
        let options = Options::new(thresholds(0.3, 0.7, 5));
        let (one, other) =
            (evaluate(&truth, &detections, &options).unwrap(), evaluate(&truth, &turned, &options).unwrap());
        prop_assert_eq!(one.map, other.map);
    }
}
