//! Which clips of a window train the backbone (spec 20, section 4, step 1).

use longtake_shared::config::ClipSampler;
use longtake_shared::random::Key;
use rand::seq::SliceRandom as _;

/// Positions of `sampled` of `clips` clips, ascending, drawn below `key`.
pub fn sample_clips(key: Key, sampler: ClipSampler, clips: usize, sampled: usize) -> Vec<usize> {
    let sampled = sampled.min(clips);
    match sampler {
        ClipSampler::Random => {
            let mut all: Vec<usize> = (0..clips).collect();
            all.shuffle(&mut key.child("sampled clips", 0).rng());
            all.truncate(sampled);
            all.sort_unstable();
            all
        }
        ClipSampler::Uniform => {
            (0..sampled).map(|index| index * (clips - 1) / (sampled - 1).max(1)).collect()
        }
    }
}
