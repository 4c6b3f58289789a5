//! AGREE: gradients become the sum over ranks; a small control bucket carries flags and sums at the same boundary.
//!
//! Takes: this rank's flat gradient and control values. Gives: both summed, the same bits on every rank.
//! Next: `super::learner`. There is no other word between ranks in a step, and none to the coordinator.

use burn::tensor::Device;
use bytemuck::{Pod, Zeroable};

use crate::collective::{CollectiveError, SharedCollective};
use crate::control::Flags;
use crate::model::heads::MAX_TERMS;
use crate::optim::{Flat, FlatLayout, OptimError};
use crate::train::step::sample_fingerprint::SampleFingerprint;

/// The parts of a loss, in the order of [`crate::model::heads::Localizer::terms`]; 0 in slots that a family does not use.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct Terms(pub [f32; MAX_TERMS]);

impl Terms {
    /// At most [`MAX_TERMS`] parts.
    pub fn of(parts: &[f32]) -> Self {
        let mut terms = Self::default();
        terms.0[..parts.len()].copy_from_slice(parts);
        terms
    }
}

/// What ranks tell each other with every step. Flags are sums: a flag is up where its sum is above 0.
///
/// The fields are the values on the wire, in this order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct Control {
    /// Ranks that were asked to stop.
    pub stop: f32,
    /// Ranks that were asked to save.
    pub checkpoint: f32,
    /// Ranks that were asked to leave the generation with all state.
    pub reconfigure: f32,
    /// Ranks whose last save is not in the chain yet.
    pub saving: f32,
    /// Loss, already divided by the normaliser of all ranks.
    pub loss: f32,
    /// Its parts, in the order of the localizer's terms.
    pub terms: Terms,
    /// Samples that took part.
    pub samples: f32,
    /// Which ones these are.
    pub sample_fingerprint: SampleFingerprint,
    /// Clips that trained the backbone.
    pub clips: f32,
    /// Predictions matched with an action (detector), or clips classified rightly (pretraining).
    pub positives: f32,
    /// Samples that could not be read.
    pub skipped: f32,
    /// Videos that ranks have found damaged and have not told each other of.
    pub damaged_videos: f32,
    /// Rows that memory lacked.
    pub absent_rows: f32,
    /// Rows of the samples' windows that memory has, but whose bytes are not those that were written.
    pub damaged_rows: f32,
    /// Sum of the ages of the remembered rows that were read, in steps.
    pub age_sum: f32,
    /// Number of these rows.
    pub age_count: f32,
    /// Digest of the parameters in two parts of 16 bits; 0 in steps without a comparison.
    pub digest: [f32; 2],
}

/// What all ranks have agreed to do at a step boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing but the next step.
    GoOn,
    /// Leave the generation, and keep everything.
    Leave,
    /// Save and end.
    Stop,
}

impl Control {
    /// This rank's wishes at a boundary.
    pub fn wishing(flags: Flags) -> Self {
        let value = |wish: bool| f32::from(u8::from(wish));
        Self {
            stop: value(flags.stop),
            checkpoint: value(flags.checkpoint),
            reconfigure: value(flags.reconfigure),
            ..Self::default()
        }
    }

    /// What all ranks do at this boundary besides going on. A stop comes before all else.
    pub fn wish(&self) -> Wish {
        if self.stop > 0.0 {
            Wish::Stop
        } else if self.reconfigure > 0.0 {
            Wish::Leave
        } else {
            Wish::GoOn
        }
    }

    /// Sums control values over ranks without a gradient: at boundaries that no step ends.
    ///
    /// # Errors
    /// The generation was aborted or a peer was lost.
    pub fn sum(self, collective: &SharedCollective) -> Result<Self, CollectiveError> {
        let mut values = [self];
        collective.with(|collective| collective.all_reduce(bytemuck::cast_slice_mut(&mut values)))?;
        Ok(values[0])
    }

    /// Whether every rank has the digest that this rank contributed as `own`. Sums of 16-bit parts over fewer than 256
    /// ranks are exact in f32, and if each rank's part times the world size is the sum, all parts are equal.
    pub fn digests_agree(&self, own: [f32; 2], world: usize) -> bool {
        (0..2).all(|part| self.digest[part] == own[part] * world as f32)
    }
}

/// Why ranks did not come to an agreement. Nothing may be applied then.
#[derive(Debug, thiserror::Error)]
pub enum AgreeError {
    /// The generation was aborted or a peer was lost.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// The gradient could not be read from the device.
    #[error(transparent)]
    Device(#[from] OptimError),
}

/// Sums the gradient in buckets of `bucket_values`, then the control values.
///
/// # Errors
/// The generation was aborted, a peer was lost, or the device failed.
pub fn agree(
    collective: &SharedCollective,
    layout: &FlatLayout,
    gradients: Flat,
    control: Control,
    bucket_values: usize,
    device: &Device,
) -> Result<(Flat, Control), AgreeError> {
    if collective.with(|collective| Ok(collective.world()))? == 1 {
        return Ok((gradients, control));
    }
    let mut values = gradients.to_host()?;
    for bucket in values.chunks_mut(bucket_values.max(1)) {
        collective.with(|collective| collective.all_reduce(bucket))?;
    }
    let control = control.sum(collective)?;
    Ok((Flat::from_host(layout, &values, device)?, control))
}

/// Digest of parameters in two parts of 16 bits, as exact f32 values; never both 0.
pub fn digest(bytes: impl Iterator<Item = f32>) -> [f32; 2] {
    let mut hasher = blake3::Hasher::new();
    for value in bytes {
        hasher.update(&value.to_le_bytes());
    }
    let hash = hasher.finalize();
    let part = |at: usize| f32::from(u16::from_le_bytes([hash.as_bytes()[at], hash.as_bytes()[at + 1]]));
    [part(0).max(1.0), part(2)]
}
