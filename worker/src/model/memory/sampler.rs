//! Which clips of a window train the backbone; the features of the others are remembered (spec 20, sections 4 and 6).

use longtake_shared::config::ClipSampler;
use longtake_shared::random::Key;
use rand::seq::SliceRandom as _;

/// The clips of a window, divided. Both lists are sorted; together they are all clips.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipChoice {
    /// Clips that pass through the backbone with a gradient.
    pub sampled: Vec<usize>,
    /// Clips whose features come from the memory.
    pub remembered: Vec<usize>,
}

/// Chooses `sampled` of `clips` clips; all of them where there are not more.
pub fn choose_clips(sampler: ClipSampler, clips: usize, sampled: usize, key: Key) -> ClipChoice {
    let count = sampled.min(clips);
    let mut chosen = match sampler {
        ClipSampler::Random => random(clips, count, key),
        ClipSampler::Uniform => uniform(clips, count),
    };
    chosen.sort_unstable();
    chosen.dedup();
    let remembered = (0..clips).filter(|clip| chosen.binary_search(clip).is_err()).collect();
    ClipChoice { sampled: chosen, remembered }
}

/// Without replacement, each subset equally likely.
fn random(clips: usize, count: usize, key: Key) -> Vec<usize> {
    let mut order: Vec<usize> = (0..clips).collect();
    let (chosen, _) = order.partial_shuffle(&mut key.child("sampled clips", 0).rng(), count);
    chosen.to_vec()
}

/// `floor(linspace(0, clips - 1, count))` as NumPy computes it: multiples of the step, the last one exact.
fn uniform(clips: usize, count: usize) -> Vec<usize> {
    let last = clips.saturating_sub(1);
    let step = last as f64 / count.saturating_sub(1).max(1) as f64;
    (0..count)
        .map(|index| if index > 0 && index + 1 == count { last } else { (index as f64 * step) as usize })
        .collect()
}

#[cfg(test)]
mod tests {
    use longtake_shared::config::MemoryConfig;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        num_frames: usize,
        chunk_size: usize,
        keep_ratio: f64,
        keep: Vec<usize>,
        drop: Vec<usize>,
        random_keep_count: usize,
    }

    #[test]
    fn clips_are_those_of_the_published_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/cases/chunk_selection.json");
        let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(!golden.cases.is_empty());
        for case in golden.cases {
            let clips = case.num_frames / case.chunk_size;
            let config = MemoryConfig { sampling_rate: case.keep_ratio, ..MemoryConfig::default() };
            let count = config.sampled_clips(clips);
            let uniform = choose_clips(ClipSampler::Uniform, clips, count, Key::root(0));
            assert_eq!((uniform.sampled, uniform.remembered), (case.keep, case.drop));
            let random = choose_clips(ClipSampler::Random, clips, count, Key::root(0));
            assert_eq!(random.sampled.len(), case.random_keep_count);
        }
    }

    #[test]
    fn random_clips_are_distinct_sorted_and_evenly_drawn() {
        let mut drawn = [0; 15];
        for seed in 0..3000 {
            let choice = choose_clips(ClipSampler::Random, 15, 4, Key::root(seed));
            assert_eq!(choice.sampled.len(), 4);
            assert!(choice.sampled.windows(2).all(|pair| pair[0] < pair[1]));
            let mut all = [choice.sampled.clone(), choice.remembered].concat();
            all.sort_unstable();
            assert_eq!(all, (0..15).collect::<Vec<_>>());
            for clip in choice.sampled {
                drawn[clip] += 1;
            }
        }
        // 800 each on average, with a standard deviation of 24.
        assert!(drawn.iter().all(|count| (680..920).contains(count)), "{drawn:?}");
        let again = |seed| choose_clips(ClipSampler::Random, 15, 4, Key::root(seed));
        assert_eq!(again(1), again(1));
        assert_ne!(again(1), again(2));
    }

    #[test]
    fn none_one_and_all_clips_can_be_sampled() {
        for sampler in [ClipSampler::Random, ClipSampler::Uniform] {
            assert!(choose_clips(sampler, 15, 0, Key::root(0)).sampled.is_empty());
            assert_eq!(choose_clips(sampler, 15, 1, Key::root(0)).sampled.len(), 1);
            assert_eq!(choose_clips(sampler, 3, 3, Key::root(0)).sampled, [0, 1, 2]);
            assert_eq!(choose_clips(sampler, 1, 9, Key::root(0)).sampled, [0]);
            assert!(choose_clips(sampler, 0, 3, Key::root(0)).sampled.is_empty());
        }
    }
}
