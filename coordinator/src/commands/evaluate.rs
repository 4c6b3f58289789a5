//! `longtake evaluate`: predictions, or weights on a data set -> the mAP table.

use std::path::Path;

use longtake_shared::config::{DisputedVideos, EvaluationConfig};
use longtake_shared::dataset::{self, Subset};
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::metrics::{Detections, GroundTruth, Labels, Options, Report, average_recall, evaluate};
use longtake_shared::role::EvaluateRequest;

use super::detect::cut_short;
use super::run_folder::weights_of;
use super::{Session, files, interruption, settings, tell};
use crate::cli::{EvaluateArgs, RuleArgs, Rules};

/// Most detections a video, on average, that recall is told for: as ActivityNet's evaluator has it.
const PROPOSALS: usize = 100;

pub(super) fn run(args: &EvaluateArgs, session: &Session) -> Result<ExitCode, Failure> {
    let report = match (&args.predictions, &args.annotations, &args.weights, &args.config) {
        (Some(predictions), Some(annotations), _, _) => {
            settings::only(&args.overrides, &["evaluation.tiou"], "`longtake evaluate --predictions`")?;
            let config = settings::without_file(&args.overrides)?.config.evaluation;
            let _watch = interruption::at_once(session, || {})?;
            let detections = Detections::read(predictions)?;
            let truth = GroundTruth::read(annotations, &args.rules.subset, args.rules.blocked.as_deref())?;
            tell(&truth.remarks, session.console);
            report(&truth, &detections, &options(&args.rules, &config))?
        }
        (_, _, Some(weights), Some(config)) => of_weights(weights, config, args, session)?,
        _ => {
            return Err(Failure::new("`longtake evaluate` needs something to evaluate")
                .hint("give WEIGHTS and CONFIG, or --predictions and --annotations")
                .never_restart());
        }
    };
    let text = format!("{}\n{}", report.table(), report.notes().join("\n"));
    session.console.result(&text, &report)?;
    Ok(ExitCode::Done)
}

/// Detects in the validation videos first.
fn of_weights(
    weights: &Path,
    config: &Path,
    args: &EvaluateArgs,
    session: &Session,
) -> Result<Report, Failure> {
    let worker = session.worker("evaluate")?;
    let weights = weights_of(weights);
    files::require(&weights, "the weights file")?;
    let mut settings = Box::new(settings::load(config, &args.overrides)?);
    let config = &mut settings.config;
    let mut options = options(&args.rules, &config.evaluation);
    settings::require_paths(config)?;
    config.data.disputed_videos = args.rules.disputed_videos.unwrap_or(config.data.disputed_videos);
    // What is not left out when the data set is loaded counts.
    options.disputed_videos = DisputedVideos::Kept;
    let dataset = dataset::load(&config.data)?;
    tell(&dataset.remarks, session.console);
    let interruption = interruption::in_order()?;
    let tried = args.out.as_deref().map(files::writable).transpose()?;
    let bar = session.console.bar("detecting");
    let request = EvaluateRequest { weights, settings };
    let detected = (worker.evaluate)(&request, &interruption.stop, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    drop(tried);
    let detected = detected?;
    if let Some(warning) = cut_short(&detected) {
        session.console.warn(&warning);
    }
    let mut detections = detected.detections;
    // The order of a results file decides between equal scores, so that file and memory give the same figures.
    detections.sort();
    if let Some(path) = &args.out {
        files::write_whole(path, detections.to_json().as_bytes())?;
    }
    report(&GroundTruth::of_dataset(&dataset, Subset::Validation), &detections, &options)
}

/// mAP and AR@AN, and what the other way to treat labels without ground truth gives where it gives something else.
fn report(truth: &GroundTruth, detections: &Detections, options: &Options) -> Result<Report, Failure> {
    let mut report = evaluate(truth, detections, options)?;
    report.average_recall = Some(average_recall(truth, detections, options, PROPOSALS)?);
    let (other, phrase) = match options.labels {
        Labels::ByName => (Labels::Colliding, "by the label collision of published EPIC-Kitchens figures"),
        Labels::Colliding => (Labels::ByName, "without the label collision"),
    };
    let average = evaluate(truth, detections, &Options { labels: other, ..options.clone() })?.average;
    if average != report.average {
        report.rules.push(format!("{phrase} the average mAP is {:.1} %", 100.0 * average));
    } else if options.labels == Labels::Colliding {
        report.rules.push("no label collides, or classes have no numbers".to_owned());
    }
    Ok(report)
}

fn options(rules: &RuleArgs, config: &EvaluationConfig) -> Options {
    let tiou = rules.tiou.as_ref().map_or_else(|| config.tiou.clone(), |typed| typed.0.clone());
    let own = Options::of_config(&EvaluationConfig { tiou, ..config.clone() });
    let mut options = match rules.rules {
        Rules::Activitynet => Options::activitynet(own.tiou),
        Rules::Opentad => Options::opentad(own.tiou),
        Rules::Afsd => Options::afsd(own.tiou),
        Rules::Vedatad => Options::vedatad(own.tiou),
    };
    options.ties = rules.ties.unwrap_or(options.ties);
    options.unknown_videos = rules.unknown_videos.unwrap_or(options.unknown_videos);
    options.clean_ground_truth |= rules.clean_ground_truth;
    options.disputed_videos = rules.disputed_videos.unwrap_or(options.disputed_videos);
    options.rounding = rules.round.unwrap_or(options.rounding);
    if rules.epic_label_collision {
        options.labels = Labels::Colliding;
    }
    options
}
