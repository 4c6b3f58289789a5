//! mAP by the rules of each published evaluator.

use std::collections::BTreeMap;

use longtake_shared::metrics::{Detections, GroundTruth, Options, Report, TieOrder, evaluate, thresholds};
use serde::Deserialize;

use crate::support::{Case, Runner};

/// Modules that this file runs.
pub(crate) const RUNNERS: &[(&str, Runner)] = &[("detection mAP", mean_average_precision)];

/// A case compares at least this many sets of figures, so that none passes by comparing nothing.
const FEWEST_COMPARED: usize = 10;

#[derive(Deserialize)]
struct Expected {
    subset: String,
    tolerance: Tolerance,
    #[serde(rename = "expected")]
    by_thresholds: BTreeMap<String, ByEvaluator>,
}

#[derive(Deserialize)]
struct Tolerance {
    abs: f64,
}

#[derive(Deserialize)]
struct ByEvaluator {
    tious: Vec<f64>,
    #[serde(flatten)]
    figures: BTreeMap<String, Figures>,
}

/// What one evaluator gave: figures, or the error it ended with.
#[derive(Deserialize)]
#[serde(untagged)]
enum Figures {
    Failed {
        error: String,
    },
    Computed {
        #[serde(rename = "mAP")]
        map: Vec<f64>,
        #[serde(rename = "average_mAP")]
        average: f64,
        ap: BTreeMap<String, Vec<f64>>,
        num_gt: Option<usize>,
    },
}

/// The rules of an evaluator by its name in the cases; `None` where the order of ties makes its figures irreproducible.
fn rules(evaluator: &str, tiou: Vec<f64>, ties_matter: bool) -> Result<Option<Options>, String> {
    let (base, ties) = if let Some(base) = evaluator.strip_suffix("_ties_last_first") {
        (base, TieOrder::LaterFirst)
    } else if let Some(base) = evaluator.strip_suffix("_ties_file_order") {
        (base, TieOrder::EarlierFirst)
    } else if ties_matter {
        return Ok(None);
    } else {
        (evaluator, TieOrder::LaterFirst)
    };
    let options = match base {
        "activitynet" => Options::activitynet(tiou),
        "opentad" => Options::opentad(tiou),
        "tallformer_afsd" => Options::afsd(tiou),
        "tallformer_vedatad_eval_map" => Options::vedatad(tiou),
        other => return Err(format!("`{other}` is no evaluator that is known")),
    };
    Ok(Some(Options { ties, ..options }))
}

fn mean_average_precision(case: &Case) -> Result<(), String> {
    let path = case.folder.join("expected.json");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("`{}`: {e}", path.display()))?;
    let expected: Expected = serde_json::from_str(&text).map_err(|e| format!("`{}`: {e}", path.display()))?;
    let truth = GroundTruth::read(&case.folder.join("ground_truth.json"), &expected.subset, None)
        .map_err(|e| e.to_string())?;
    let detections = Detections::read(&case.folder.join("predictions.json")).map_err(|e| e.to_string())?;
    let mut compared = 0;
    for ByEvaluator { tious, figures } in expected.by_thresholds.into_values() {
        let (Some(first), Some(last)) = (tious.first(), tious.last()) else {
            return Err("a set of figures has no threshold".to_owned());
        };
        if tious != thresholds(*first, *last, tious.len()) {
            return Err(format!("{tious:?} are not the thresholds that the official evaluator makes"));
        }
        for (evaluator, figures) in figures {
            let Some(options) = rules(&evaluator, tious.clone(), case.name == "eval_ties")? else { continue };
            let report = evaluate(&truth, &detections, &options).map_err(|e| e.to_string())?;
            compare(&report, &figures, expected.tolerance.abs)
                .map_err(|reason| format!("{evaluator} at {tious:?}: {reason}"))?;
            compared += 1;
        }
    }
    if compared < FEWEST_COMPARED {
        return Err(format!("only {compared} sets of figures were compared"));
    }
    Ok(())
}

fn compare(report: &Report, figures: &Figures, tolerance: f64) -> Result<(), String> {
    let (map, average, ap, ground_truth) = match figures {
        Figures::Failed { error } => {
            let label = report.counts.unknown_labels.first().map_or("(none)", String::as_str);
            let ours = format!("KeyError: '{label}'");
            return if *error == ours { Ok(()) } else { Err(format!("{ours} instead of {error}")) };
        }
        Figures::Computed { map, average, ap, num_gt } => (map, average, ap, num_gt),
    };
    close("mAP", &report.map, map, tolerance)?;
    close("average mAP", &[report.average], &[*average], tolerance)?;
    if report.per_class.len() != ap.len() {
        return Err(format!("{} classes instead of {}", report.per_class.len(), ap.len()));
    }
    for class in &report.per_class {
        let expected = ap.get(&class.name).ok_or_else(|| format!("`{}` is not expected", class.name))?;
        close(&class.name, &class.ap, expected, tolerance)?;
    }
    match ground_truth {
        Some(count) if *count != report.counts.ground_truth => {
            Err(format!("{} actions instead of {count}", report.counts.ground_truth))
        }
        _ => Ok(()),
    }
}

fn close(name: &str, found: &[f64], expected: &[f64], tolerance: f64) -> Result<(), String> {
    let agree = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() <= tolerance);
    if agree { Ok(()) } else { Err(format!("{name}: {found:?} instead of {expected:?}")) }
}
