//! Which clips of a window are sampled.

use longtake_shared::config::{ClipSampler, MemoryConfig};
use longtake_shared::random::Key;
use longtake_worker::model::memory::choose_clips;
use serde::Deserialize;

use crate::support::{Case, Runner};

/// Modules that this file runs.
pub(crate) const RUNNERS: &[(&str, Runner)] = &[("partial_feedback.indice_selection (uniform)", selection)];

#[derive(Deserialize)]
struct Selection {
    num_frames: usize,
    chunk_size: usize,
    keep_ratio: f64,
    keep: Vec<usize>,
    drop: Vec<usize>,
    random_keep_count: usize,
}

fn selection(case: &Case) -> Result<(), String> {
    let selections: Vec<Selection> =
        serde_json::from_value(case.value("/cases")?.clone()).map_err(|e| format!("`cases`: {e}"))?;
    if selections.is_empty() {
        return Err("no selection is listed".to_owned());
    }
    for Selection { num_frames, chunk_size, keep_ratio, keep, drop, random_keep_count } in selections {
        let clips = num_frames / chunk_size;
        let choose = |sampler| {
            let config = MemoryConfig { sampler, sampling_rate: keep_ratio, ..MemoryConfig::default() };
            choose_clips(&config, clips, clips, Key::root(0))
        };
        let uniform = choose(ClipSampler::Uniform);
        if (&uniform.sampled, &uniform.remembered) != (&keep, &drop) {
            return Err(format!(
                "{clips} clips at {keep_ratio}: {uniform:?} instead of {keep:?} and {drop:?}"
            ));
        }
        let random = choose(ClipSampler::Random).sampled.len();
        if random != random_keep_count {
            return Err(format!(
                "{clips} clips at {keep_ratio}: {random} drawn instead of {random_keep_count}"
            ));
        }
    }
    Ok(())
}
