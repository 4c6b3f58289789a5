//! WHICH SAMPLES A STEP TOOK: one number that is the same however its lanes are dealt to ranks, and another for other samples.
//!
//! Takes: this rank's samples. Gives: two sums of hashes. Next: `super::gradient_sync` adds them over ranks.

use std::iter::Sum;

use longtake_shared::ids::LaneId;

use crate::data::plan::SamplePlan;
use crate::data::trimmed::TrimmedPlan;

/// Bits of a hash that a sum takes: sums over up to 4096 samples then stay below 2^24, where f32 holds every integer. So
/// neither the number of ranks nor the order of additions changes them.
const BITS: u32 = 12;

/// Sums of two hashes over samples.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SampleFingerprint(pub [f32; 2]);

impl SampleFingerprint {
    /// A window: lane, video, and where in the video it lies.
    pub fn of_window(plan: &SamplePlan) -> Self {
        let SamplePlan { lane: LaneId(lane), video, start, shift, .. } = plan;
        Self::of(&[u64::from(*lane), u64::from(video.0), start.0.cast_unsigned(), *shift as u64])
    }

    /// A trimmed clip at a place of the global batch.
    pub fn of_clip(place: LaneId, plan: &TrimmedPlan) -> Self {
        Self::of(&[u64::from(place.0), u64::from(plan.video.0), plan.start.0.cast_unsigned()])
    }

    fn of(name: &[u64]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for number in name {
            hasher.update(&number.to_le_bytes());
        }
        let hash = hasher.finalize();
        let part = |at: usize| {
            let bits = u16::from_le_bytes([hash.as_bytes()[at], hash.as_bytes()[at + 1]]);
            f32::from(bits >> (u16::BITS - BITS))
        };
        Self([part(0), part(2)])
    }

    /// Both sums as one number, for whoever compares runs.
    pub fn number(self) -> f64 {
        f64::from(self.0[0]) * f64::from(1u32 << 24) + f64::from(self.0[1])
    }
}

impl Sum for SampleFingerprint {
    fn sum<I: Iterator<Item = Self>>(samples: I) -> Self {
        samples.fold(Self::default(), |sum, sample| Self([sum.0[0] + sample.0[0], sum.0[1] + sample.0[1]]))
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::float_cmp,
        reason = "the sums are whole numbers, and that they are exact is what is tested"
    )]

    use super::*;

    fn ids(count: u64) -> Vec<SampleFingerprint> {
        (0..count).map(|number| SampleFingerprint::of(&[number, 7, 3])).collect()
    }

    #[test]
    fn sums_over_4096_samples_are_exact_in_any_order() {
        let all = ids(4096);
        let whole: SampleFingerprint = all.iter().copied().sum();
        assert!(whole.0.iter().all(|sum| *sum < 16_777_216.0 && *sum > 0.0));
        for ranks in [2, 3, 7] {
            let of_rank = |rank| all.iter().copied().skip(rank).step_by(ranks).sum::<SampleFingerprint>();
            assert_eq!((0..ranks).rev().map(of_rank).sum::<SampleFingerprint>().number(), whole.number());
        }
        let worst = SampleFingerprint([4095.0; 2]);
        assert_eq!(std::iter::repeat_n(worst, 4096).sum::<SampleFingerprint>().0, [4095.0 * 4096.0; 2]);
    }

    #[test]
    fn another_sample_gives_another_number() {
        let numbers: std::collections::BTreeSet<u64> =
            ids(1000).into_iter().map(|ids| ids.number() as u64).collect();
        assert!(numbers.len() > 990, "{} of 1000 differ", numbers.len());
        assert_ne!(SampleFingerprint::of(&[1, 2, 3]), SampleFingerprint::of(&[2, 1, 3]));
    }
}
