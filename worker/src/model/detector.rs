//! The detector: a backbone that sees clips, and a head that sees the whole window.
//!
//! Takes: clips, then features of the window. Gives: scores and offsets. Next: [`crate::loss`] or [`crate::infer`].

use burn::module::Module;
use longtake_shared::config::RunConfig;

use super::backbone::VideoSwin;
use super::heads::daotad::{DetectorHead, DetectorShape};
use super::layers::Init;

/// TALLFormer's detector (paper section 3). Features of sampled clips and remembered features of the others meet between
/// its two parts, which is why they are two.
#[derive(Module, Debug)]
pub struct Detector {
    /// CLIPS -> FEATURES.
    pub backbone: VideoSwin,
    /// FEATURES OF THE WINDOW -> SCORES AND OFFSETS.
    pub detection: DetectorHead,
}

impl Detector {
    /// A detector with fresh parameters for this many classes.
    pub fn new(config: &RunConfig, classes: usize, init: &Init) -> Self {
        let shape = DetectorShape {
            features: config.model.backbone.channels(),
            positions: config.data.window_frames / 2,
            classes,
        };
        Self {
            backbone: VideoSwin::new(&config.model.backbone, &init.field("backbone")),
            detection: DetectorHead::new(&config.model.neck, &config.model.head, shape, init),
        }
    }
}
