//! The detector: a backbone that sees clips, and a localizer that sees the features of a whole window.
//!
//! Takes: clips, then features of the window. Gives: a loss, or candidates. Next: [`crate::train`] or [`crate::infer`].

use burn::module::Module;
use longtake_shared::config::RunConfig;

use super::backbone::Backbone;
use super::heads::Localizer;
use super::layers::Init;

/// TALLFormer's detector (paper section 3). Features of sampled clips and remembered features of the others meet between
/// its two parts, which is why they are two.
#[derive(Module, Debug)]
pub struct Detector {
    /// CLIPS -> FEATURES.
    pub backbone: Backbone,
    /// FEATURES OF THE WINDOW -> LOSS OR CANDIDATES.
    pub detection: Localizer,
}

impl Detector {
    /// A detector with fresh parameters for this many classes.
    pub fn new(config: &RunConfig, classes: usize, init: &Init) -> Self {
        Self {
            backbone: Backbone::new(&config.model.backbone, &init.field("backbone")),
            detection: Localizer::new(config, classes, init),
        }
    }
}
