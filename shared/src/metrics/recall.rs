//! Recall of the best detections (spec 60, section 9).

use serde::{Deserialize, Serialize};

use super::average_precision::{Ranked, Sheet, judged, positions, rank, tiou};
use super::{Detections, GroundTruth, Interval, MetricsError, Options, thresholds};

/// Top-kx recall, one value a threshold: of a video with n actions of a class the best k * n detections are looked at,
/// and an action is found if any of them overlaps it enough (several actions may be found by one detection).
/// The mean over the classes that have ground truth.
///
/// # Errors
/// No ground truth, or no threshold.
pub fn top_kx_recall(
    truth: &GroundTruth,
    detections: &Detections,
    options: &Options,
    k: usize,
) -> Result<Vec<f64>, MetricsError> {
    if options.tiou.is_empty() {
        return Err(MetricsError::NoThreshold);
    }
    let (truth, _) = judged(truth, options)?;
    let sheet = Sheet::of(&truth);
    let (ranked, _) = rank(&truth, &sheet, detections, options);
    let mut sums = vec![0.0; options.tiou.len()];
    let mut classes = 0usize;
    for (label, ranked) in ranked.iter().enumerate() {
        let actions = sheet.of_class(label).len();
        if actions == 0 {
            continue;
        }
        classes += 1;
        let mut looked_at = vec![0usize; truth.videos.len()];
        let mut best = vec![0.0f64; truth.actions.len()];
        for detection in ranked {
            let Some(video) = detection.video else { continue };
            let (first, intervals) = sheet.of_video(label, video as usize);
            let seen = &mut looked_at[video as usize];
            if *seen == k * intervals.len() {
                continue;
            }
            *seen += 1;
            for (offset, interval) in intervals.iter().enumerate() {
                let best = &mut best[first + offset];
                *best = best.max(tiou(detection, interval.start, interval.end));
            }
        }
        for (sum, threshold) in sums.iter_mut().zip(&options.tiou) {
            *sum += best.iter().filter(|tiou| *tiou >= threshold).count() as f64 / actions as f64;
        }
    }
    Ok(sums.into_iter().map(|sum| sum / classes as f64).collect())
}

/// Recall of detections as proposals, whatever their class (AR@AN).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AverageRecall {
    /// At 1, 2, 3, ... detections a video on average: the mean over tIoU 0.5 to 0.95 of the share of actions found.
    pub at: Vec<f64>,
    /// Area below it, over the largest number of detections.
    pub area: f64,
}

/// Average recall at up to `most` detections a video on average, as ActivityNet's evaluator of proposals has it: all
/// videos keep the same share of their best detections. Thresholds are always 0.5 to 0.95; classes do not matter.
///
/// # Errors
/// No ground truth.
pub fn average_recall(
    truth: &GroundTruth,
    detections: &Detections,
    options: &Options,
    most: usize,
) -> Result<AverageRecall, MetricsError> {
    let (truth, _) = judged(truth, options)?;
    let tiou_thresholds = thresholds(0.5, 0.95, 10);
    let videos = proposals(&truth, detections);
    let shown: Vec<&Proposals> = videos.iter().filter(|video| !video.actions.is_empty()).collect();
    let all: usize = shown.iter().map(|video| video.best_first.len()).sum();
    let wanted = (most * shown.len()) as f64;
    let share = |count: usize, part: f64| ((count as f64 * part) as usize).min(count);
    let kept: Vec<usize> =
        shown.iter().map(|video| share(video.best_first.len(), wanted / all.max(1) as f64)).collect();
    let kept_in_all = kept.iter().sum::<usize>().max(1) as f64;
    let mut found = vec![0usize; most];
    for (video, kept) in shown.iter().zip(&kept) {
        for action in &video.actions {
            let overlaps: Vec<f64> = video.best_first[..*kept]
                .iter()
                .map(|proposal| tiou(proposal, action.start, action.end))
                .collect();
            for threshold in &tiou_thresholds {
                let Some(first) = overlaps.iter().position(|overlap| overlap >= threshold) else { continue };
                for (place, found) in found.iter_mut().enumerate() {
                    let part = (place + 1) as f64 / most as f64 * (wanted / kept_in_all);
                    *found += usize::from(first < share(*kept, part));
                }
            }
        }
    }
    let compared = (truth.actions.len() * tiou_thresholds.len()) as f64;
    let at: Vec<f64> = found.into_iter().map(|found| found as f64 / compared).collect();
    let area = at.windows(2).map(|pair| f64::midpoint(pair[0], pair[1])).sum::<f64>() / most.max(1) as f64;
    Ok(AverageRecall { at, area })
}

/// What happens in a video, and all detections there.
struct Proposals {
    actions: Vec<Interval>,
    best_first: Vec<Ranked>,
}

fn proposals(truth: &GroundTruth, detections: &Detections) -> Vec<Proposals> {
    let mut videos: Vec<Proposals> =
        truth.videos.iter().map(|_| Proposals { actions: Vec::new(), best_first: Vec::new() }).collect();
    for action in &truth.actions {
        videos[action.video as usize].actions.push(*action);
    }
    let places = positions(&detections.videos, &truth.videos, true);
    for item in &detections.items {
        let finite = item.score.is_finite() && item.start.is_finite() && item.end.is_finite();
        if let Some(video) = places[item.video as usize].filter(|_| finite) {
            let (start, end, score) = (item.start, item.end, item.score);
            videos[video as usize].best_first.push(Ranked { video: Some(video), start, end, score });
        }
    }
    for video in &mut videos {
        video.best_first.sort_by(|a, b| b.score.total_cmp(&a.score));
    }
    videos
}
