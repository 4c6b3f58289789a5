//! From detections and annotations to a [`Picture`].

use longtake_shared::metrics::{Detections, GroundTruth};
use longtake_shared::role::Detected;
use longtake_shared::units::Seconds;

use crate::timeline::{Detection, Panel, Picture, Segment};

/// One panel for each video of `shown` (positions in the detections' videos), in that order.
pub(super) fn picture(
    title: &str,
    threshold: f64,
    detected: &Detected,
    truth: Option<&GroundTruth>,
    shown: impl IntoIterator<Item = usize>,
) -> Picture {
    let panels = shown
        .into_iter()
        .map(|video| {
            let name = &detected.detections.videos[video];
            Panel {
                video: name.clone(),
                duration: detected.durations.get(video).copied().unwrap_or_default(),
                truth: truth.and_then(|truth| annotated(truth, name)),
                detections: found(&detected.detections, video),
            }
        })
        .collect();
    Picture { title: title.to_owned(), threshold, panels }
}

/// The actions of a video; nothing where the annotations do not know it. ActivityNet's files are named `v_<id>`.
pub(super) fn annotated(truth: &GroundTruth, name: &str) -> Option<Vec<Segment>> {
    let named = |name: &str| truth.videos.iter().position(|id| id == name);
    let video = named(name).or_else(|| named(name.strip_prefix("v_")?))?;
    let actions = truth.actions.iter().filter(|action| action.video as usize == video);
    let segment = |label: u32, start: f64, end: f64| Segment {
        label: truth.classes[label as usize].clone(),
        start: Seconds(start),
        end: Seconds(end),
    };
    Some(actions.map(|action| segment(action.label, action.start, action.end)).collect())
}

/// The detections of a video, the surest first.
pub(super) fn found(detections: &Detections, video: usize) -> Vec<Detection> {
    let mut found: Vec<Detection> = detections
        .items
        .iter()
        .filter(|item| item.video as usize == video)
        .map(|item| Detection {
            segment: Segment {
                label: detections.labels[item.label as usize].clone(),
                start: Seconds(item.start),
                end: Seconds(item.end),
            },
            score: item.score,
        })
        .collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found
}

/// The score from which on about as many detections of the shown videos remain as actions are annotated in them, and
/// half as many again: a picture of a weak detector shows its best, one of a good detector is not crowded.
pub(super) fn legible_threshold(
    detections: &Detections,
    truth: &GroundTruth,
    shown: impl IntoIterator<Item = usize>,
) -> f64 {
    let mut scores = Vec::new();
    let mut actions = 0;
    for video in shown {
        scores.extend(found(detections, video).iter().map(|found| found.score));
        actions += annotated(truth, &detections.videos[video]).map_or(0, |actions| actions.len());
    }
    scores.sort_by(|a, b| b.total_cmp(a));
    let wanted = (actions + actions.div_ceil(2)).max(1);
    let score = scores.get(wanted - 1).or(scores.last()).copied().unwrap_or(0.5);
    // To a hundredth, downwards, since the picture names it.
    ((score * 100.0).floor() / 100.0).clamp(0.05, 0.5)
}

#[cfg(test)]
mod tests {
    use longtake_shared::metrics::Interval;

    use super::*;

    fn detections(scores: &[f64]) -> Detections {
        let items = scores
            .iter()
            .map(|score| longtake_shared::metrics::Detection {
                video: 0,
                label: 0,
                start: 0.0,
                end: 1.0,
                score: *score,
            })
            .collect();
        Detections { videos: vec!["v_pool".into()], labels: vec!["dive".into()], items }
    }

    fn two_actions() -> GroundTruth {
        let action = |start| Interval { video: 0, label: 0, start, end: start + 1.0 };
        GroundTruth {
            videos: vec!["pool".into()],
            classes: vec!["dive".into()],
            actions: vec![action(0.0), action(5.0)],
            ..GroundTruth::default()
        }
    }

    #[test]
    fn the_threshold_leaves_half_as_many_more_as_there_are_actions() {
        let threshold = |scores: &[f64]| legible_threshold(&detections(scores), &two_actions(), [0]);
        assert!((threshold(&[0.2, 0.45, 0.9, 0.31, 0.1]) - 0.31).abs() < 1e-12);
        assert!((threshold(&[0.01, 0.02]) - 0.05).abs() < 1e-12, "never below what can be told apart");
        assert!((threshold(&[0.99; 9]) - 0.5).abs() < 1e-12, "never so high that good detections are hidden");
    }

    #[test]
    fn files_of_activitynet_find_their_annotations() {
        assert_eq!(annotated(&two_actions(), "v_pool").map(|actions| actions.len()), Some(2));
        assert_eq!(annotated(&two_actions(), "lake"), None);
    }
}
