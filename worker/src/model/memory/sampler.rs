//! Which clips of a window train the backbone; the features of the others are remembered (spec 20, sections 4 and 6).

use longtake_shared::config::{ClipSampler, MemoryConfig};
use longtake_shared::random::Key;
use rand::RngExt as _;
use rand::seq::SliceRandom as _;

/// The clips of a window, divided. Both lists are sorted; together they are all clips.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipChoice {
    /// Clips that pass through the backbone with a gradient.
    pub sampled: Vec<usize>,
    /// Clips whose features come from the memory.
    pub remembered: Vec<usize>,
}

/// Chooses some of `clips` clips: as many as the sampling rate says for a window of `window_clips` clips, which are fewer
/// where the division into clips is shifted; all of them where there are not more.
pub fn choose_clips(config: &MemoryConfig, window_clips: usize, clips: usize, key: Key) -> ClipChoice {
    let count = config.sampled_clips(window_clips).min(clips);
    let mut chosen = match config.sampler {
        ClipSampler::Random => random(clips, count, key),
        ClipSampler::Uniform => uniform(clips, count),
        ClipSampler::UniformJitter => jittered(clips, count, config.sampled_share(window_clips), key),
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

/// Evenly spread from the first clip on, each moved on by up to the distance of two; some may be the same (spec 20,
/// section 6, step 3: `share` is r' times the number of clips there).
fn jittered(clips: usize, count: usize, share: f64, key: Key) -> Vec<usize> {
    let last = clips.saturating_sub(1);
    if count > last {
        return (0..clips).collect();
    }
    let mut rng = key.child("sampled clips", 0).rng();
    let step = last as f64 / count.max(1) as f64;
    (0..count)
        .map(|place| {
            let moved = place as f64 * step + rng.random::<f64>() * (last as f64 / share);
            (moved as usize).min(last)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn config(sampler: ClipSampler, sampling_rate: f64) -> MemoryConfig {
        MemoryConfig { sampler, sampling_rate, ..MemoryConfig::default() }
    }

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
            let choose = |sampler| {
                let config = config(sampler, case.keep_ratio);
                choose_clips(&config, clips, clips, Key::root(0))
            };
            let uniform = choose(ClipSampler::Uniform);
            assert_eq!((uniform.sampled, uniform.remembered), (case.keep, case.drop));
            let random = choose(ClipSampler::Random);
            assert_eq!(random.sampled.len(), case.random_keep_count);
        }
    }

    #[test]
    fn random_clips_are_distinct_sorted_and_evenly_drawn() {
        let mut drawn = [0; 15];
        for seed in 0..3000 {
            let choice = choose_clips(&config(ClipSampler::Random, 4.0 / 15.0), 15, 15, Key::root(seed));
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
        let again = |seed| choose_clips(&config(ClipSampler::Random, 4.0 / 15.0), 15, 15, Key::root(seed));
        assert_eq!(again(1), again(1));
        assert_ne!(again(1), again(2));
    }

    #[test]
    fn none_one_and_all_clips_can_be_sampled() {
        for sampler in [ClipSampler::Random, ClipSampler::Uniform, ClipSampler::UniformJitter] {
            let choose = |rate: f64, clips: usize| {
                choose_clips(&config(sampler, rate), clips, clips, Key::root(0)).sampled
            };
            assert!(choose(0.0, 15).is_empty());
            assert_eq!(choose(1.0 / 15.0, 15).len(), 1);
            assert_eq!(choose(1.0, 3), [0, 1, 2]);
            assert_eq!(choose(1.0, 1), [0]);
            assert!(choose(0.5, 0).is_empty());
        }
    }

    /// The numbers of the published recipe: 24 clips and one more for the shift, r = 0.375.
    #[test]
    fn jittered_clips_lie_within_one_distance_of_their_place() {
        let distance = 24.0 / 9.0;
        let (mut fewer, mut first) = (0, [0; 25]);
        for seed in 0..2000 {
            let choice = choose_clips(&config(ClipSampler::UniformJitter, 0.375), 24, 25, Key::root(seed));
            let sampled = &choice.sampled;
            assert!(sampled.windows(2).all(|pair| pair[0] < pair[1]) && *sampled.last().unwrap() <= 24);
            assert_eq!(sampled.len() + choice.remembered.len(), 25);
            for place in 0..9 {
                let from = f64::from(place) * distance;
                let reach = from as usize..=(from + distance) as usize;
                assert!(sampled.iter().any(|clip| reach.contains(clip)), "{sampled:?} miss {reach:?}");
            }
            fewer += usize::from(sampled.len() < 9);
            first[sampled[0]] += 1;
        }
        assert!(fewer > 0, "two that fall together are one");
        // The first lies evenly in [0, 2.67): 3 of 8 times each in clips 0 and 1, 2 of 8 times in clip 2.
        assert!((650..850).contains(&first[0]) && (650..850).contains(&first[1]), "{first:?}");
        assert_eq!(first[3..], [0; 22]);
        let all = choose_clips(&config(ClipSampler::UniformJitter, 1.0), 24, 25, Key::root(1)).sampled;
        assert!(all.len() <= 24, "24 of 25 are asked for");
    }
}
