//! An order of rows, the way back, and the kernel that follows it.

use std::sync::Arc;

use rayon::prelude::*;

use super::extension::{Operation, Values, View};

/// Where each row of a result comes from. No source feeds two rows, so the way back is such a map too.
#[derive(Debug, Clone)]
pub struct RowMap {
    sources: Arc<[u32]>,
    targets: Arc<[u32]>,
}

impl RowMap {
    /// Stands for a row of zeros.
    const NONE: u32 = u32::MAX;

    /// Row `i` of the result is row `sources[i]` of `inputs` rows, or zeros.
    pub fn new(sources: Vec<Option<usize>>, inputs: usize) -> Self {
        let mut targets = vec![Self::NONE; inputs];
        for (row, source) in sources.iter().enumerate() {
            if let Some(source) = *source {
                targets[source] = row as u32;
            }
        }
        let sources = sources.into_iter().map(|source| source.map_or(Self::NONE, |row| row as u32)).collect();
        Self { sources, targets: targets.into() }
    }

    /// Rows of the result.
    pub fn outputs(&self) -> usize {
        self.sources.len()
    }

    /// Rows of the source.
    pub fn inputs(&self) -> usize {
        self.targets.len()
    }

    /// Where a row of the result comes from; nothing for zeros.
    pub fn source(&self, row: usize) -> Option<usize> {
        self.sources.get(row).filter(|&&source| source != Self::NONE).map(|&source| source as usize)
    }

    /// Whether every row of the result has a source.
    pub fn is_full(&self) -> bool {
        !self.sources.contains(&Self::NONE)
    }

    /// The way back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self { sources: self.targets.clone(), targets: self.sources.clone() }
    }

    /// Rows of each image in the map's order, `[B, inputs, C]` -> `[B, outputs, C]`.
    fn apply(&self, x: View<'_>) -> Values {
        let (images, width) = (x.shape[0], x.shape[2]);
        let mut y = vec![0.0; images * self.outputs() * width];
        for (y, x) in y
            .chunks_exact_mut((self.outputs() * width).max(1))
            .zip(x.values.chunks_exact((self.inputs() * width).max(1)))
        {
            y.par_chunks_mut(ROWS * width).zip(self.sources.par_chunks(ROWS)).for_each(|(y, sources)| {
                for (y, &source) in y.chunks_exact_mut(width).zip(sources) {
                    if source != Self::NONE {
                        y.copy_from_slice(&x[source as usize * width..][..width]);
                    }
                }
            });
        }
        Values::new(y, &[images, self.outputs(), width])
    }
}

/// Rows of one task.
const ROWS: usize = 256;

#[derive(Debug)]
pub(super) struct Gather(pub(super) RowMap);

impl Operation<1> for Gather {
    fn forward(&self, [x]: [View<'_>; 1]) -> Values {
        self.0.apply(x)
    }

    fn keeps(&self) -> [bool; 1] {
        [false]
    }

    fn backward(&self, _: [View<'_>; 1], gradient: View<'_>, _: [bool; 1]) -> [Option<Values>; 1] {
        [Some(self.0.inverse().apply(gradient))]
    }
}
