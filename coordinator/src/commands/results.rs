//! Detections as a results file in the ActivityNet layout.

use longtake_shared::role::DetectedVideo;
use serde_json::{Map, Value, json};

/// `{"version", "results": {video: [{"label", "score", "segment": [start, end]}]}, "external_data"}` (spec 60).
pub(super) fn activitynet(videos: &[DetectedVideo]) -> Value {
    let results: Map<String, Value> =
        videos.iter().map(|video| (video.id.clone(), json!(video.detections))).collect();
    json!({
        "version": concat!("longtake ", env!("CARGO_PKG_VERSION")),
        "results": results,
        "external_data": {},
    })
}

#[cfg(test)]
mod tests {
    use longtake_shared::role::DetectedAction;
    use longtake_shared::units::Seconds;

    use super::*;

    #[test]
    fn the_layout_is_that_of_activitynet() {
        let detections = vec![DetectedAction {
            label: "dive".into(),
            score: 0.5,
            segment: [Seconds(1.25), Seconds(3.0)],
        }];
        let value = activitynet(&[DetectedVideo { id: "pool".into(), duration: Seconds(9.0), detections }]);
        assert_eq!(
            value["results"],
            json!({ "pool": [{ "label": "dive", "score": 0.5, "segment": [1.25, 3.0] }] })
        );
        assert!(value["version"].is_string() && value["external_data"].is_object());
    }
}
