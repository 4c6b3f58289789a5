//! Interpolated average precision (spec 60, section 6): detections sorted once, each looked at once.

use std::collections::BTreeMap;
use std::ops::Add;

use super::{
    Arithmetic, ClassReport, Counts, Detections, GroundTruth, Interval, Labels, MetricsError, Options,
    Report, TieOrder, UnknownVideos, collided,
};
use crate::config::DisputedVideos;
use crate::dataset::DISPUTED;

/// The union of two intervals is at least this long, so that two without length do not match (decision D26).
const SMALLEST_UNION: f64 = 1e-8;

/// Judges detections.
///
/// # Errors
/// No ground truth, or no threshold.
pub fn evaluate(
    truth: &GroundTruth,
    detections: &Detections,
    options: &Options,
) -> Result<Report, MetricsError> {
    if options.tiou.is_empty() {
        return Err(MetricsError::NoThreshold);
    }
    let has_disputed = truth.videos.iter().any(|id| DISPUTED.contains(&id.as_str()));
    let (truth, cleaned) = judged(truth, options)?;
    let sheet = Sheet::of(&truth);
    let (ranked, mut counts) = rank(&truth, &sheet, detections, options);
    counts.cleaned = cleaned;

    let mut per_class = Vec::new();
    for (label, (name, ranked)) in truth.classes.iter().zip(&ranked).enumerate() {
        let actions = sheet.of_class(label);
        if actions.is_empty() {
            continue;
        }
        counts.classes_without_predictions += usize::from(ranked.is_empty());
        let ap = hits(&sheet, label, ranked, options)
            .iter()
            .map(|hits| interpolated(hits, actions.len(), options.arithmetic))
            .collect();
        per_class.push(ClassReport {
            name: name.clone(),
            ground_truth: actions.len(),
            predictions: ranked.len(),
            ap,
        });
    }
    let map: Vec<f64> = (0..options.tiou.len()).map(|t| mean_over_classes(&per_class, t, options)).collect();
    let average = map.iter().sum::<f64>() / map.len() as f64;
    let (tiou, rules) = (options.tiou.clone(), options.sentences(has_disputed));
    Ok(Report { tiou, per_class, map, average, average_recall: None, rules, counts })
}

/// The ground truth that the rules leave, and how many actions cleaning dropped.
pub(super) fn judged(truth: &GroundTruth, options: &Options) -> Result<(GroundTruth, usize), MetricsError> {
    let mut truth = truth.clone();
    if options.disputed_videos == DisputedVideos::Dropped {
        truth.drop_disputed();
    }
    let cleaned = if options.clean_ground_truth { truth.clean() } else { 0 };
    if truth.actions.is_empty() { Err(MetricsError::NoGroundTruth) } else { Ok((truth, cleaned)) }
}

/// Ground truth by class and video: a range of one list.
pub(super) struct Sheet {
    /// Sorted by class, then video; within both in the order of the annotations.
    intervals: Vec<Interval>,
    /// Where the intervals of (class, video) begin, at `class * videos + video`; one more entry ends the last.
    begins: Vec<u32>,
    videos: usize,
}

impl Sheet {
    pub(super) fn of(truth: &GroundTruth) -> Self {
        let videos = truth.videos.len();
        let cell = |interval: &Interval| interval.label as usize * videos + interval.video as usize;
        let mut begins = vec![0u32; truth.classes.len() * videos + 1];
        for interval in &truth.actions {
            begins[cell(interval) + 1] += 1;
        }
        for index in 1..begins.len() {
            begins[index] += begins[index - 1];
        }
        let mut intervals = truth.actions.clone();
        intervals.sort_by_key(cell);
        Self { intervals, begins, videos }
    }

    pub(super) fn of_class(&self, label: usize) -> &[Interval] {
        self.between(label * self.videos, (label + 1) * self.videos).1
    }

    /// The intervals of a class in a video, and the position of the first.
    pub(super) fn of_video(&self, label: usize, video: usize) -> (usize, &[Interval]) {
        self.between(label * self.videos + video, label * self.videos + video + 1)
    }

    fn between(&self, first: usize, last: usize) -> (usize, &[Interval]) {
        let (begin, end) = (self.begins[first] as usize, self.begins[last] as usize);
        (begin, &self.intervals[begin..end])
    }
}

/// A detection whose names have been looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranked {
    /// Position in [`GroundTruth::videos`]; nothing where the video is not there.
    pub(super) video: Option<u32>,
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) score: f64,
}

/// Detections by class of the ground truth, best first.
pub(super) fn rank(
    truth: &GroundTruth,
    sheet: &Sheet,
    detections: &Detections,
    options: &Options,
) -> (Vec<Vec<Ranked>>, Counts) {
    let videos = positions(&detections.videos, &truth.videos, true);
    let left_out: Vec<bool> = (detections.videos.iter())
        .map(|id| options.disputed_videos == DisputedVideos::Dropped && DISPUTED.contains(&id.as_str()))
        .collect();
    let collided = match options.labels {
        Labels::ByName => None,
        Labels::Colliding => collided(truth, &detections.labels),
    };
    let labels = positions(collided.as_ref().unwrap_or(&detections.labels), &truth.classes, false);
    let labels: Vec<Option<u32>> = labels
        .into_iter()
        .map(|label| label.filter(|label| !sheet.of_class(*label as usize).is_empty()))
        .collect();
    let mut counts =
        Counts { videos: truth.videos.len(), ground_truth: truth.actions.len(), ..Counts::default() };
    let mut ranked = vec![Vec::new(); truth.classes.len()];
    let mut unknown_labels = vec![false; labels.len()];
    let mut per_video = vec![0usize; detections.videos.len()];
    for item in detections.items.iter().filter(|item| !left_out[item.video as usize]) {
        let video = videos[item.video as usize];
        if !(item.score.is_finite() && item.start.is_finite() && item.end.is_finite()) {
            counts.not_finite += 1;
            continue;
        }
        let Some(label) = labels[item.label as usize] else {
            counts.of_unknown_labels += 1;
            unknown_labels[item.label as usize] = true;
            continue;
        };
        counts.in_unknown_videos += usize::from(video.is_none());
        if video.is_none() && options.unknown_videos == UnknownVideos::Dropped {
            continue;
        }
        counts.predictions += 1;
        per_video[item.video as usize] += 1;
        let rounded = options.rounding.of(item.start, item.end, item.score);
        let [start, end, score] = match options.arithmetic {
            Arithmetic::Double => rounded,
            Arithmetic::Single => rounded.map(single),
        };
        ranked[label as usize].push(Ranked { video, start, end, score });
    }
    counts.most_per_video = per_video.into_iter().max().unwrap_or(0);
    counts.unknown_labels = detections
        .labels
        .iter()
        .zip(&unknown_labels)
        .filter(|(_, unknown)| **unknown)
        .map(|(name, _)| name.clone())
        .collect();
    for class in &mut ranked {
        match options.ties {
            TieOrder::EarlierFirst => class.sort_by(|a, b| b.score.total_cmp(&a.score)),
            TieOrder::LaterFirst => {
                class.sort_by(|a, b| a.score.total_cmp(&b.score));
                class.reverse();
            }
        }
    }
    (ranked, counts)
}

/// Where each name stands in `known`; for videos a `v_` more or less in front makes no difference.
pub(super) fn positions(names: &[String], known: &[String], prefix: bool) -> Vec<Option<u32>> {
    let table: BTreeMap<&str, u32> = known.iter().map(String::as_str).zip(0..).collect();
    names
        .iter()
        .map(|name| {
            let exact = table.get(name.as_str());
            let other = || {
                let found = table.get(name.strip_prefix("v_").unwrap_or(name));
                found.or_else(|| table.get(format!("v_{name}").as_str()))
            };
            exact.or_else(|| if prefix { other() } else { None }).copied()
        })
        .collect()
}

/// For each threshold, the places (from 0) of those detections that are right.
///
/// A detection takes the free action that it overlaps most, if it overlaps it enough: one whose best action is taken
/// may still match its second best.
fn hits(sheet: &Sheet, label: usize, ranked: &[Ranked], options: &Options) -> Vec<Vec<u32>> {
    let thresholds: Vec<f64> = match options.arithmetic {
        Arithmetic::Double => options.tiou.clone(),
        Arithmetic::Single => options.tiou.iter().copied().map(single).collect(),
    };
    let lowest = thresholds.iter().copied().fold(f64::INFINITY, f64::min);
    let first_of_class = sheet.begins[label * sheet.videos] as usize;
    let mut taken = vec![false; sheet.of_class(label).len() * thresholds.len()];
    let mut hits = vec![Vec::new(); thresholds.len()];
    let mut overlaps: Vec<(f64, usize)> = Vec::new();
    for (place, detection) in (0u32..).zip(ranked) {
        let Some(video) = detection.video else { continue };
        let (first, intervals) = sheet.of_video(label, video as usize);
        overlaps.clear();
        for (offset, interval) in intervals.iter().enumerate() {
            let tiou = match options.arithmetic {
                Arithmetic::Double => tiou(detection, interval.start, interval.end),
                Arithmetic::Single => tiou_single(detection, interval.start as f32, interval.end as f32),
            };
            if tiou >= lowest {
                overlaps.push((tiou, first + offset - first_of_class));
            }
        }
        overlaps.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        for (t, threshold) in thresholds.iter().enumerate() {
            let free = overlaps
                .iter()
                .take_while(|(tiou, _)| tiou >= threshold)
                .find(|(_, action)| !taken[action * thresholds.len() + t]);
            if let Some((_, action)) = free {
                taken[action * thresholds.len() + t] = true;
                hits[t].push(place);
            }
        }
    }
    hits
}

/// Temporal intersection over union, in seconds.
pub(super) fn tiou(detection: &Ranked, start: f64, end: f64) -> f64 {
    let shared = (detection.end.min(end) - detection.start.max(start)).max(0.0);
    let union = (detection.end - detection.start) + (end - start) - shared;
    shared / union.max(SMALLEST_UNION)
}

fn tiou_single(detection: &Ranked, start: f32, end: f32) -> f64 {
    let (own_start, own_end) = (detection.start as f32, detection.end as f32);
    let shared = (own_end.min(end) - own_start.max(start)).max(0.0);
    let union = (own_end - own_start) + (end - start) - shared;
    f64::from(shared / union.max(SMALLEST_UNION as f32))
}

/// Area below the precision over recall, where precision at a recall is the best at this or a higher recall.
///
/// Recall rises where a detection is right, and precision falls everywhere else: the hits are enough. The terms and the
/// order of their sum are NumPy's, since rounding to 32 bits shows the last bit of the sum.
fn interpolated(hits: &[u32], actions: usize, arithmetic: Arithmetic) -> f64 {
    let mut precision: Vec<f64> = hits
        .iter()
        .enumerate()
        .map(|(earlier, place)| {
            let (right, seen) = ((earlier + 1) as f64, f64::from(*place) + 1.0);
            match arithmetic {
                Arithmetic::Double => right / seen,
                Arithmetic::Single => f64::from(right as f32 / seen as f32),
            }
        })
        .collect();
    for hit in (1..precision.len()).rev() {
        precision[hit - 1] = precision[hit - 1].max(precision[hit]);
    }
    let recall = |right: usize| right as f64 / actions as f64;
    let mut steps: Vec<f64> =
        precision.iter().enumerate().map(|(hit, best)| (recall(hit + 1) - recall(hit)) * best).collect();
    if steps.len() < actions {
        // The step to a recall of 1, which no detection reaches.
        steps.push(0.0);
    }
    let area = pairwise_sum(&steps);
    match arithmetic {
        Arithmetic::Double => area,
        Arithmetic::Single => single(area),
    }
}

fn mean_over_classes(classes: &[ClassReport], threshold: usize, options: &Options) -> f64 {
    let count = classes.len();
    match options.arithmetic {
        Arithmetic::Double => {
            let values: Vec<f64> = classes.iter().map(|class| class.ap[threshold]).collect();
            pairwise_sum(&values) / count as f64
        }
        Arithmetic::Single => {
            let mut by_name: Vec<(&str, f32)> =
                classes.iter().map(|class| (class.name.as_str(), class.ap[threshold] as f32)).collect();
            by_name.sort_by(|a, b| a.0.cmp(b.0));
            let values: Vec<f32> = by_name.into_iter().map(|(_, ap)| ap).collect();
            f64::from(pairwise_sum(&values) / count as f32)
        }
    }
}

/// NumPy's order of summation: eight partial sums, halves above 128 (numpy/core/src/umath/loops_utils.h.src,
/// `pairwise_sum`).
fn pairwise_sum<T: Copy + Default + Add<Output = T>>(values: &[T]) -> T {
    let in_turn = |first: T, values: &[T]| values.iter().fold(first, |sum, value| sum + *value);
    if values.len() < 8 {
        return in_turn(T::default(), values);
    }
    if values.len() > 128 {
        let half = values.len() / 2;
        let (low, high) = values.split_at(half - half % 8);
        return pairwise_sum(low) + pairwise_sum(high);
    }
    let blocks = values.chunks_exact(8);
    let rest = blocks.remainder();
    let mut sums = [T::default(); 8];
    for block in blocks {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum = *sum + *value;
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    in_turn(((a + b) + (c + d)) + ((e + f) + (g + h)), rest)
}

fn single(value: f64) -> f64 {
    f64::from(value as f32)
}
