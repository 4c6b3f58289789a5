//! CLIPS -> FEATURES, chunk by chunk: the one encoder that the training step, the initialisation of the memory, inference and the
//! golden cases share.
//!
//! Takes: clips as pixels on the host. Gives: their features, one chunk at a time, so that no more than a chunk is on the device.
//! Next: [`crate::model::memory`], or [`crate::model::heads`].

use burn::tensor::{Device, Tensor};
use longtake_shared::config::DataConfig;
use longtake_shared::random::Key;

use super::Backbone;
use crate::model::pass::Pass;
use crate::tensors::stack;

/// How clips pass through a backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Running statistics, nothing dropped, no tape.
    Evaluate,
    /// Dropout and drop path drawn from each clip's key, no tape.
    Train,
    /// The same with a tape; the backbone must have one.
    TrainWithTape,
}

/// One clip to encode.
#[derive(Debug, Clone, Copy)]
pub struct EncoderClip<'a> {
    /// `[3, L, H, W]`, normalised.
    pub pixels: &'a [f32],
    /// What its drop path is drawn from: not its neighbours in the chunk.
    pub key: Key,
}

/// Encodes clips of one size in chunks.
#[derive(Debug, Clone, Copy)]
pub struct ClipEncoder<'a> {
    /// Most clips that pass the backbone at once (`memory.chunk_clips`).
    pub chunk_clips: usize,
    /// `[3, L, H, W]` of a clip.
    pub clip_shape: [usize; 4],
    /// Where the backbone lives.
    pub device: &'a Device,
}

impl<'a> ClipEncoder<'a> {
    /// For clips of `data.clip_frames` square crops.
    pub fn new(data: &DataConfig, chunk_clips: usize, device: &'a Device) -> Self {
        Self { chunk_clips, clip_shape: [3, data.clip_frames, data.crop, data.crop], device }
    }

    /// The size of a chunk.
    pub fn chunk(&self) -> usize {
        self.chunk_clips.max(1)
    }

    /// Features of one chunk of clips.
    ///
    /// # Shapes
    /// N clips -> `[N, C, ceil(L / stride)]`
    pub fn encode(&self, backbone: &Backbone, clips: &[EncoderClip<'_>], encoding: Encoding) -> Tensor<3> {
        let pixels = stack(clips.iter().map(|clip| clip.pixels), self.clip_shape, self.device);
        let keys: Vec<Key> = clips.iter().map(|clip| clip.key).collect();
        match encoding {
            Encoding::Evaluate => backbone.features(pixels, Pass::Evaluate),
            Encoding::Train => backbone.features(pixels, Pass::Train { keys: &keys }),
            Encoding::TrainWithTape => backbone.features(pixels.autodiff(), Pass::Train { keys: &keys }),
        }
    }

    /// Features of neighbouring clips of one video, side by side in time. `clip` renders the pixels of one, `before_chunk` is called
    /// before each chunk and may end the work.
    ///
    /// # Shapes
    /// -> `[1, C, clips * ceil(L / stride)]`
    ///
    /// # Errors
    /// What `clip` or `before_chunk` gives.
    pub fn sequence<E>(
        &self,
        backbone: &Backbone,
        clips: usize,
        encoding: Encoding,
        mut clip: impl FnMut(usize) -> Result<(Vec<f32>, Key), E>,
        mut before_chunk: impl FnMut() -> Result<(), E>,
    ) -> Result<Tensor<3>, E> {
        let mut features = Vec::with_capacity(clips);
        for first in (0..clips).step_by(self.chunk()) {
            before_chunk()?;
            let rendered = (first..clips.min(first + self.chunk())).map(&mut clip);
            let rendered = rendered.collect::<Result<Vec<_>, E>>()?;
            let chunk: Vec<EncoderClip<'_>> =
                rendered.iter().map(|(pixels, key)| EncoderClip { pixels, key: *key }).collect();
            let chunk_ncf = self.encode(backbone, &chunk, encoding);
            features.extend((0..chunk.len()).map(|row| chunk_ncf.clone().narrow(0, row, 1)));
        }
        Ok(Tensor::cat(features, 2))
    }
}
