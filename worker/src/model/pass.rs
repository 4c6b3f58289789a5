//! How a forward pass behaves: training or not, and which random numbers it draws.

use longtake_shared::random::Key;

/// Training or evaluation, decided by the caller for each pass and never stored in a module.
#[derive(Debug, Clone, Copy)]
pub enum Pass<'a> {
    /// No dropout, no drop path, running statistics.
    Evaluate,
    /// Dropout, drop path and batch statistics.
    Train {
        /// One key for each entry of the first axis: what is drawn for a sample does not depend on its neighbours.
        keys: &'a [Key],
    },
}

impl Pass<'_> {
    /// Whether this is a training pass.
    pub fn is_train(&self) -> bool {
        matches!(self, Self::Train { .. })
    }

    /// Multipliers of inverted drop path for one site, `[N]`: 0 with probability `rate`, else `1 / (1 - rate)`.
    /// Nothing where nothing is dropped.
    pub fn drop_path(&self, rate: f64, site: u64) -> Option<Vec<f32>> {
        let Self::Train { keys } = self else { return None };
        (rate > 0.0)
            .then(|| keys.iter().map(|key| keep(&mut key.child("drop path", site).rng(), rate)).collect())
    }

    /// Multipliers of inverted dropout for one site, `[N * width]`, drawn row by row from each sample's own key.
    pub fn dropout(&self, rate: f64, site: u64, width: usize) -> Option<Vec<f32>> {
        let Self::Train { keys } = self else { return None };
        (rate > 0.0).then(|| {
            keys.iter()
                .flat_map(|key| {
                    let mut rng = key.child("dropout", site).rng();
                    (0..width).map(move |_| keep(&mut rng, rate)).collect::<Vec<_>>()
                })
                .collect()
        })
    }
}

/// One multiplier: 0 with probability `rate`, else what keeps the expectation.
fn keep(rng: &mut impl rand::Rng, rate: f64) -> f32 {
    let draw = f64::from(rng.next_u32()) / (f64::from(u32::MAX) + 1.0);
    if draw < rate { 0.0 } else { (1.0 / (1.0 - rate)) as f32 }
}
