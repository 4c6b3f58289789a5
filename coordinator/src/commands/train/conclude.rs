//! What a run says at its end: the mAP table and what lies where, or what stopped it and how to go on.

use std::fmt::Write as _;

use longtake_shared::dataset::{Dataset, Subset};
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::metrics::{Detections, GroundTruth, Options, Report};
use longtake_shared::role::Detected;
use longtake_shared::units::Seconds;
use serde_json::json;

use super::prepare::Prepared;
use crate::commands::{Session, files, pictures};
use crate::terminal::phrases::shell;
use crate::timeline;
use crate::updates::Outcome;

/// Validation videos in the picture.
const PICTURED: usize = 3;

/// The last words of a run.
pub(super) fn conclude(
    ended: &Ended,
    prepared: &Prepared,
    dataset: &Dataset,
    session: &Session,
) -> Result<ExitCode, Failure> {
    match &ended.outcome {
        Outcome::Done => {
            if let Err(failure) = draw(prepared, dataset) {
                session.console.warn(&failure.message);
            }
            done(ended, prepared, dataset, session)
        }
        Outcome::Preempted { step } => {
            let run = shell(&prepared.folder.0);
            let stopped = match (ended.saved, step.0) {
                (true, _) => format!("stopped and saved after {step}"),
                (false, 0) => "stopped before there was anything to save: the run will begin anew".to_owned(),
                (false, _) => format!("stopped; what was done up to {step} had been saved before"),
            };
            session.console.say(&stopped);
            session.console.say(&format!("go on with: longtake {} --resume {run}", ended.command));
            Ok(ExitCode::Preempted)
        }
        Outcome::Failed { .. } => Err(failure(ended, prepared)),
    }
}

/// How a run ended.
pub(super) struct Ended {
    /// Why.
    pub(super) outcome: Outcome,
    /// The last validation.
    pub(super) report: Option<serde_json::Value>,
    /// Whether it has saved a checkpoint.
    pub(super) saved: bool,
    /// The command that goes on with it.
    pub(super) command: &'static str,
    /// How long it took.
    pub(super) elapsed: Seconds,
}

fn done(
    ended: &Ended,
    prepared: &Prepared,
    dataset: &Dataset,
    session: &Session,
) -> Result<ExitCode, Failure> {
    let summary = prepared.folder.summary(ended.elapsed);
    let report = ended.report.clone().and_then(|report| serde_json::from_value::<Report>(report).ok());
    let mut text = String::new();
    if let Some(report) = &report {
        text.push_str(&["\n", &report.table(), "\n"].concat());
    }
    let baseline = baseline(prepared, dataset).unwrap_or_else(|failure| {
        session.console.warn(&failure.message);
        None
    });
    if let Some(baseline) = baseline {
        let _ =
            writeln!(text, "  the same detections dealt to the wrong videos: {:.1} %\n", 100.0 * baseline);
    }
    text.push_str(&summary.text());
    session
        .console
        .result(&text, &json!({ "report": report, "shuffled_average": baseline, "summary": summary }))?;
    Ok(ExitCode::Done)
}

/// Average mAP of the last validation's detections dealt to the wrong videos: what chance would give with the same
/// lengths, labels and scores. Nothing where there was no validation, or only one video.
fn baseline(prepared: &Prepared, dataset: &Dataset) -> Result<Option<f64>, Failure> {
    let results = prepared.folder.results();
    if !results.exists() {
        return Ok(None);
    }
    let config = &prepared.resolved.config;
    let detections = Detections::read(&results)?;
    let truth = GroundTruth::of_dataset(dataset, Subset::Validation);
    let options = Options::of_config(&config.evaluation);
    Ok(Report::shuffled_baseline(&truth, &detections, &options, config.run.seed)?)
}

/// Detections of the last validation beside the ground truth, for a few of its videos.
fn draw(prepared: &Prepared, dataset: &Dataset) -> Result<(), Failure> {
    let results = prepared.folder.results();
    if !results.exists() {
        return Ok(());
    }
    let detections = Detections::read(&results)?;
    let durations = detections
        .videos
        .iter()
        .map(|id| {
            let annotated = dataset.videos.iter().find(|video| video.id == *id);
            annotated.map(|video| video.duration).unwrap_or_default()
        })
        .collect();
    let truth = GroundTruth::of_dataset(dataset, Subset::Validation);
    let detected = Detected { detections, durations, cut: Vec::new() };
    let shown = 0..detected.detections.videos.len().min(PICTURED);
    let threshold = pictures::legible_threshold(&detected.detections, &truth, shown.clone());
    let title = format!("{}: detections on validation videos", prepared.resolved.config.run.name);
    let picture = pictures::picture(&title, threshold, &detected, Some(&truth), shown);
    files::write_whole(&prepared.folder.timeline(), timeline::draw(&picture).as_bytes())
}

/// A failed run as one sentence; the log's last lines and the way on are advice.
fn failure(ended: &Ended, prepared: &Prepared) -> Failure {
    let Outcome::Failed { cause, hint: advice, rank, log, never_restart, resumable_at } = &ended.outcome
    else {
        return Failure::new("the run ended");
    };
    let whose = rank.filter(|rank| !cause.contains(&rank.to_string()));
    let whose = whose.map(|rank| format!(" ({rank})")).unwrap_or_default();
    let run = prepared.folder.0.display();
    let mut hint = advice.clone().unwrap_or_else(|| format!("read the logs in {run}/logs"));
    if let Some(step) = resumable_at.filter(|_| !never_restart) {
        let (command, run) = (ended.command, shell(&prepared.folder.0));
        let _ = write!(hint, "; then go on from {step} with `longtake {command} --resume {run}`");
    }
    if !log.is_empty() {
        let _ = write!(hint, "; the log ends with\n  {}", log.join("\n  "));
    }
    let failure = Failure::new(format!("{cause}{whose}")).hint(hint);
    if *never_restart { failure.never_restart() } else { failure }
}
