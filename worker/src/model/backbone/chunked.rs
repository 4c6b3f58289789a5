//! A window of frames through the backbone, never more than a few clips at a time (spec 10, section 8).

use burn::tensor::Tensor;

use super::VideoSwin;
use crate::model::pass::Pass;

/// Temporal stride of the backbone, as trimming takes it: fixed, whatever the patch is (TALLFormer, `chunk_model.py`).
const STRIDE: usize = 2;

/// Cuts windows into clips, the last one filled up with zero frames.
///
/// # Shapes
/// `[B, 3, D, H, W]` -> `[B * clips, 3, clip_frames, H, W]`, the clips of one window neighbours
pub fn clips_of(frames: Tensor<5>, clip_frames: usize) -> Tensor<5> {
    let [batch, colours, length, height, width] = frames.dims();
    let clips = length.div_ceil(clip_frames);
    let missing = clips * clip_frames - length;
    let frames = if missing == 0 {
        frames
    } else {
        let zeros = Tensor::zeros([batch, colours, missing, height, width], &frames.device());
        Tensor::cat(vec![frames, zeros], 2)
    };
    frames.reshape([batch, colours, clips, clip_frames, height, width]).permute([0, 2, 1, 3, 4, 5]).reshape([
        batch * clips,
        colours,
        clip_frames,
        height,
        width,
    ])
}

impl VideoSwin {
    /// Features of whole windows, the clips side by side on the batch axis.
    ///
    /// # Shapes
    /// `[B, 3, D, H, W]` -> `[B, C, about D / 2, h, w]`: half of the appended frames is trimmed, rounded down
    pub fn forward_window(&self, frames: Tensor<5>, clip_frames: usize, pass: Pass) -> Tensor<5> {
        let [batch, _, length, _, _] = frames.dims();
        let clips = self.forward(clips_of(frames, clip_frames), pass);
        let [count, channels, steps, height, width] = clips.dims();
        let per_window = count / batch;
        let appended = per_window * clip_frames - length;
        clips
            .reshape([batch, per_window, channels, steps, height, width])
            .swap_dims(1, 2)
            .reshape([batch, channels, per_window * steps, height, width])
            .narrow(2, 0, per_window * steps - appended / STRIDE)
    }

    /// Features of clips that already ride on an axis of their own.
    ///
    /// # Shapes
    /// `[clips, B, 3, L, H, W]` -> `[clips, B, C, L / 2]`; the keys of a training pass follow the first two axes, flattened
    pub fn features_of_clips(&self, clips: Tensor<6>, pass: Pass) -> Tensor<4> {
        let [count, batch, colours, frames, height, width] = clips.dims();
        let features = self.features(clips.reshape([count * batch, colours, frames, height, width]), pass);
        let [_, channels, steps] = features.dims();
        features.reshape([count, batch, channels, steps])
    }

    /// Features of whole windows, `chunk_clips` clips at a time. For a backbone of plain tensors: without a tape it takes
    /// the memory of one chunk.
    ///
    /// # Shapes
    /// `[B, 3, D, H, W]` -> `[B, C, ceil(D / 2)]`
    pub fn features_of_frames(&self, frames: Tensor<5>, clip_frames: usize, chunk_clips: usize) -> Tensor<3> {
        let [batch, _, length, _, _] = frames.dims();
        let clips = clips_of(frames, clip_frames);
        let count = clips.dims()[0];
        let chunks = (0..count)
            .step_by(chunk_clips.max(1))
            .map(|start| {
                let size = chunk_clips.max(1).min(count - start);
                self.features(clips.clone().narrow(0, start, size), Pass::Evaluate)
            })
            .collect();
        let features = Tensor::cat(chunks, 0);
        let [_, channels, steps] = features.dims();
        let per_window = count / batch;
        features
            .reshape([batch, per_window, channels, steps])
            .swap_dims(1, 2)
            .reshape([batch, channels, per_window * steps])
            .narrow(2, 0, length.div_ceil(STRIDE))
    }
}
