//! A whole video through the detector: windows, clips, features, candidates, detections.
//!
//! Takes: a video file. Gives: its detections in seconds, best first. Next: results and mAP.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use longtake_shared::config::RunConfig;
use longtake_shared::random::Key;
use longtake_shared::units::{FrameIndex, Seconds};

use super::nms::Kept;
use super::windows::{WindowPlace, merge_windows, test_windows, window_stride};
use crate::collective::CollectiveError;
use crate::data::augment::AugmentDraw;
use crate::data::clip::{ClipError, Renderer};
use crate::data::decode::FrameStore;
use crate::data::video::VideoError;
use crate::model::backbone::encoder::{ClipEncoder, Encoding};
use crate::model::detector::Detector;
use crate::model::heads::{Candidates, HeadError, HeadPass, WindowBatch};
use crate::model::norm::{LocalMoments, MomentsReducer};
use crate::model::pass::Pass;

/// Why a video has no detections.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// It cannot be read.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// Frames do not fit the settings.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// The localizer cannot take the windows.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The generation is over.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// A signal has asked to stop.
    #[error("the detection was stopped by a signal")]
    Stopped,
}

impl longtake_shared::hint::Hint for DetectError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Video(error) => error.hint(),
            Self::Clip(error) => error.hint(),
            Self::Head(error) => error.hint(),
            Self::Collective(error) => error.hint(),
            Self::Stopped => None,
        }
    }
}

/// What turns videos into detections: a model without a tape and its settings.
#[derive(Clone, Copy)]
pub struct VideoDetector<'a> {
    /// The model.
    pub model: &'a Detector,
    /// Its settings.
    pub config: &'a RunConfig,
    /// Where frames come from.
    pub frames: &'a FrameStore,
    /// Where tensors live.
    pub device: &'a Device,
    /// Asked before each chunk whether to go on: as long as the generation lives, or until a signal has asked to stop.
    pub goes_on: Option<&'a dyn Fn() -> Result<(), DetectError>>,
}

impl VideoDetector<'_> {
    /// Detections of a video, best first. Of a window only the candidates above the score threshold are held until the end.
    ///
    /// # Errors
    /// The video cannot be read, or the generation is over.
    pub fn detect(&self, video: &Path) -> Result<Kept, DetectError> {
        let config = self.config;
        let total = self.frames.length(video)?;
        let stride = window_stride(config.data.window_frames, config.evaluation.window_stride);
        let threshold = config.evaluation.score_threshold as f32;
        let mut found = Vec::new();
        for window in test_windows(total, config.data.window_frames, stride) {
            let features = self.features(video, window.start)?;
            let place = WindowPlace {
                start: window.start,
                frames: window.len(),
                fps: config.data.fps as f32,
                past_end: config.evaluation.past_end,
            };
            found.append(&mut place.detections(&self.candidates(features, window.len())?, threshold));
        }
        let mut kept = merge_windows(&found, &config.evaluation, Seconds(total as f64 / config.data.fps));
        // A candidate beyond the end is clipped to a segment without length, which cannot be an action.
        kept.detections.retain(|detection| detection.segment[1] > detection.segment[0]);
        Ok(kept)
    }

    /// Features of the window that begins at a frame, every clip fresh: `[1, C, T]`.
    fn features(&self, video: &Path, start: usize) -> Result<Tensor<3>, DetectError> {
        let data = &self.config.data;
        let renderer = Renderer::new(data)?;
        let centred = AugmentDraw::centred(data);
        let clip = |clip: usize| {
            let first = FrameIndex((start + clip * data.clip_frames) as i64);
            let frames = self.frames.frames(video, first, data.clip_frames)?;
            let pixels = renderer.render(&frames, first, data.clip_frames, &centred)?;
            Ok::<_, DetectError>((pixels, Key::root(0)))
        };
        let go_on = || self.goes_on.map_or(Ok(()), |goes_on| goes_on());
        let encoder = ClipEncoder::new(data, self.config.memory.chunk_clips, self.device);
        encoder.sequence(&self.model.backbone, data.clips(), Encoding::Evaluate, clip, go_on)
    }

    /// Candidates of one window of which the first `frames` frames show the video.
    fn candidates(&self, features_bct: Tensor<3>, frames: usize) -> Result<Candidates, HeadError> {
        let sums: Arc<dyn MomentsReducer> = Arc::new(LocalMoments);
        let geometry = self.config.geometry();
        let lengths = [geometry.rows(frames).min(geometry.positions)];
        let batch = WindowBatch { features_bct, lengths: &lengths, weights: &[1.0] };
        let cx = HeadPass { pass: Pass::Evaluate, sums: &sums };
        let found = self.model.detection.detect(&batch, self.config.evaluation.top_k, cx)?;
        Ok(found.into_iter().next().unwrap_or_default())
    }
}
