//! AGREE: gradients become the sum over ranks; a small control bucket carries flags and sums at the same boundary.
//!
//! Takes: this rank's flat gradient and control values. Gives: both summed, the same bits on every rank.
//! Next: [`crate::train::learner`]. There is no other word between ranks in a step, and none to the coordinator.

use burn::tensor::Device;

use super::sample_ids::SampleIds;
use crate::collective::{CollectiveError, SharedCollective};
use crate::control::Flags;
use crate::optim::{Flat, FlatLayout, OptimError};

/// A value of [`Control`]: some slots of the control bucket, which are summed over ranks.
trait ControlValue: Copy {
    /// Slots it takes.
    const SLOTS: usize;

    fn write(self, slots: &mut [f32]);

    fn read(slots: &[f32]) -> Self;
}

impl ControlValue for f32 {
    const SLOTS: usize = 1;

    fn write(self, slots: &mut [f32]) {
        slots[0] = self;
    }

    fn read(slots: &[f32]) -> Self {
        slots[0]
    }
}

impl<const N: usize> ControlValue for [f32; N] {
    const SLOTS: usize = N;

    fn write(self, slots: &mut [f32]) {
        slots.copy_from_slice(&self);
    }

    fn read(slots: &[f32]) -> Self {
        std::array::from_fn(|slot| slots[slot])
    }
}

impl ControlValue for SampleIds {
    const SLOTS: usize = 2;

    fn write(self, slots: &mut [f32]) {
        self.0.write(slots);
    }

    fn read(slots: &[f32]) -> Self {
        Self(ControlValue::read(slots))
    }
}

/// Declares the values of the control bucket, in the order of their slots. A new value is one new line here.
macro_rules! control_values {
    ($($(#[$doc:meta])* $name:ident: $kind:ty,)*) => {
        /// The values that ranks sum with every step. A flag is set if its sum is above 0.
        #[derive(Debug, Clone, Copy, PartialEq, Default)]
        pub struct Control {
            $($(#[$doc])* pub $name: $kind,)*
        }

        /// Slots of the control bucket.
        const CONTROL_SLOTS: usize = 0 $(+ <$kind as ControlValue>::SLOTS)*;

        impl Control {
            fn to_slots(self) -> [f32; CONTROL_SLOTS] {
                let mut slots = [0.0; CONTROL_SLOTS];
                let mut rest = &mut slots[..];
                $(
                    let (own, others) = rest.split_at_mut(<$kind as ControlValue>::SLOTS);
                    self.$name.write(own);
                    rest = others;
                )*
                debug_assert!(rest.is_empty(), "the slots of all values fill the bucket");
                slots
            }

            fn from_slots(slots: [f32; CONTROL_SLOTS]) -> Self {
                let mut rest = &slots[..];
                let mut control = Self::default();
                $(
                    let (own, others) = rest.split_at(<$kind as ControlValue>::SLOTS);
                    control.$name = <$kind as ControlValue>::read(own);
                    rest = others;
                )*
                debug_assert!(rest.is_empty(), "the slots of all values fill the bucket");
                control
            }
        }
    };
}

control_values! {
    /// Ranks that were asked to stop.
    stop: f32,
    /// Ranks that were asked to save.
    checkpoint: f32,
    /// Ranks that were asked to leave the generation with all state.
    reconfigure: f32,
    /// Ranks whose last save is not in the chain yet.
    saving: f32,
    /// Loss, divided by the normaliser of all ranks.
    loss: f32,
    /// Its classification term.
    class_loss: f32,
    /// Its regression term.
    regression_loss: f32,
    /// Samples in the step.
    samples: f32,
    /// Fingerprint of these samples.
    sample_ids: SampleIds,
    /// Clips that trained the backbone.
    clips: f32,
    /// Positive anchors (detector), or correctly classified clips (pretraining).
    positives: f32,
    /// Samples that could not be read.
    skipped: f32,
    /// Rows that the memory lacked.
    absent_rows: f32,
    /// Rows of the samples' windows whose bytes in the memory are damaged.
    damaged_rows: f32,
    /// Sum of the ages of the remembered rows that were read, in steps.
    age_sum: f32,
    /// Number of these rows.
    age_count: f32,
    /// Digest of the parameters in two parts of 16 bits; 0 in steps without a comparison.
    digest: [f32; 2],
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
        let mut values = self.to_slots();
        collective.with(|collective| collective.all_reduce(&mut values))?;
        Ok(Self::from_slots(values))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_belongs_to_one_value_and_survives_the_sum() {
        let slots: [f32; CONTROL_SLOTS] = std::array::from_fn(|slot| slot as f32 + 1.0);
        let control = Control::from_slots(slots);
        assert_eq!(control.to_slots(), slots);
        assert_eq!((control.stop, control.sample_ids.0, control.digest), (1.0, [9.0, 10.0], [18.0, 19.0]));
    }
}
