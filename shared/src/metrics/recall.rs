//! Recall of the best detections (spec 60, section 9).

use super::average_precision::{Sheet, rank, tiou};
use super::{Detections, GroundTruth, MetricsError, Options};

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
    if truth.actions.is_empty() {
        return Err(MetricsError::NoGroundTruth);
    }
    let sheet = Sheet::of(truth);
    let (ranked, _) = rank(truth, &sheet, detections, options);
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
