//! A whole video through the detector: windows, clips, features, candidates, detections.
//!
//! Takes: a video file. Gives: its detections in seconds, best first. Next: results and mAP.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use longtake_shared::config::RunConfig;
use longtake_shared::units::{FrameIndex, Seconds};

use super::Candidates;
use super::decode::{LevelOutput, WindowPlace, candidates};
use super::nms::Kept;
use super::windows::{merge_windows, test_windows, window_stride};
use crate::collective::CollectiveError;
use crate::data::augment::AugmentDraw;
use crate::data::clip::{ClipError, Renderer};
use crate::data::decode::FrameStore;
use crate::data::video::VideoError;
use crate::model::detector::Detector;
use crate::model::heads::daotad::anchors::AnchorGrid;
use crate::model::norm::{LocalMoments, MomentsReducer};
use crate::model::pass::Pass;
use crate::model::tcm::consistency::TooLong;
use crate::train::pretrain::stack;
use crate::train::tape::host;

/// Why a video has no detections.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// It cannot be read.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// Frames do not fit the settings.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// The settings ask for longer windows than the model was built for.
    #[error(transparent)]
    TooLong(#[from] TooLong),
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
            Self::TooLong(error) => error.hint(),
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
            found.append(&mut self.candidates(features, place)?.above(threshold));
        }
        let mut kept = merge_windows(&found, &config.evaluation, Seconds(total as f64 / config.data.fps));
        // What an anchor beyond the end is clipped to has no length, and can be no action.
        kept.detections.retain(|detection| detection.segment[1] > detection.segment[0]);
        Ok(kept)
    }

    /// Features of the window that begins at a frame, every clip fresh: `[1, C, T]`.
    fn features(&self, video: &Path, start: usize) -> Result<Tensor<3>, DetectError> {
        let data = &self.config.data;
        let renderer = Renderer::new(data)?;
        let centred = AugmentDraw::centred(data);
        let clips: Vec<usize> = (0..data.clips()).collect();
        let mut features = Vec::with_capacity(clips.len());
        for chunk in clips.chunks(self.config.memory.chunk_clips.max(1)) {
            self.goes_on.map_or(Ok(()), |goes_on| goes_on())?;
            let mut pixels = Vec::with_capacity(chunk.len());
            for &clip in chunk {
                let first = FrameIndex((start + clip * data.clip_frames) as i64);
                let frames = self.frames.frames(video, first, data.clip_frames)?;
                pixels.push(renderer.render(&frames, first, data.clip_frames, &centred)?);
            }
            let shape = [3, data.clip_frames, data.crop, data.crop];
            let input = stack(pixels.iter().map(Vec::as_slice), shape, self.device);
            let chunk_ncf = self.model.backbone.features(input, Pass::Evaluate);
            features.extend((0..chunk.len()).map(|row| chunk_ncf.clone().narrow(0, row, 1)));
        }
        Ok(Tensor::cat(features, 2))
    }

    fn candidates(&self, features: Tensor<3>, place: WindowPlace) -> Result<Candidates, TooLong> {
        let moments: std::sync::Arc<dyn MomentsReducer> = std::sync::Arc::new(LocalMoments);
        let output = self.model.detection.forward(features, &[1.0], Pass::Evaluate, &moments)?;
        let config = &self.config.model;
        let grid = AnchorGrid::from_config(&config.neck.strides(), &config.head);
        let classes = output.class_logits[0].dims()[1] / grid.per_position();
        let levels: Vec<(Vec<f32>, Vec<f32>)> = output
            .class_logits
            .into_iter()
            .zip(output.offsets)
            .map(|(logits, offsets)| (host(logits), host(offsets)))
            .collect();
        let levels: Vec<LevelOutput<'_>> =
            levels.iter().map(|(class_logits, offsets)| LevelOutput { class_logits, offsets }).collect();
        Ok(candidates(&levels, &grid, classes, self.config.evaluation.top_k, place))
    }
}
