//! What the same detections are worth in the wrong videos: the figure that tells learning from luck.

use rand::seq::SliceRandom as _;

use super::{Detections, GroundTruth, MetricsError, Options, Report, evaluate};
use crate::random::Key;

impl Report {
    /// Average mAP after each video's detections were dealt to another video of the ground truth; nothing where there
    /// is only one. Detections in videos outside the ground truth stay where they are.
    ///
    /// # Errors
    /// What [`evaluate`] refuses.
    pub fn shuffled_baseline(
        truth: &GroundTruth,
        detections: &Detections,
        options: &Options,
        seed: u64,
    ) -> Result<Option<f64>, MetricsError> {
        if truth.videos.len() < 2 {
            return Ok(None);
        }
        let mut ring: Vec<usize> = (0..truth.videos.len()).collect();
        ring.shuffle(&mut Key::root(seed).child("shuffled baseline", 0).rng());
        let mut next = vec![0; ring.len()];
        for (place, video) in ring.iter().enumerate() {
            next[*video] = ring[(place + 1) % ring.len()];
        }
        let dealt = Detections {
            videos: super::average_precision::positions(&detections.videos, &truth.videos, true)
                .into_iter()
                .zip(&detections.videos)
                .map(|(known, name)| {
                    known.map_or_else(|| name.clone(), |video| truth.videos[next[video as usize]].clone())
                })
                .collect(),
            ..detections.clone()
        };
        Ok(Some(evaluate(truth, &dealt, options)?.average))
    }
}
