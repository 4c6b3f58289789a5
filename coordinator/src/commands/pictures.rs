//! From detected videos and their annotations to a [`Picture`].

use std::collections::BTreeMap;

use longtake_shared::role::DetectedVideo;

use crate::timeline::{Detection, Panel, Picture, Segment};

/// Annotated segments by video id.
pub(super) type Truth = BTreeMap<String, Vec<Segment>>;

/// One panel a video, in the order given.
pub(super) fn picture(title: &str, threshold: f64, videos: &[DetectedVideo], truth: Option<&Truth>) -> Picture {
    let panel = |video: &DetectedVideo| Panel {
        video: video.id.clone(),
        duration: video.duration,
        truth: truth.and_then(|truth| truth.get(&video.id).cloned()),
        detections: video
            .detections
            .iter()
            .map(|found| Detection {
                segment: Segment {
                    label: found.label.clone(),
                    start: found.segment[0],
                    end: found.segment[1],
                },
                score: found.score,
            })
            .collect(),
    };
    Picture { title: title.to_owned(), threshold, panels: videos.iter().map(panel).collect() }
}
