//! An order of rows, and the way back.

use std::sync::Arc;

/// Where each row of a result comes from. No source feeds two rows, so the way back is such a map too.
#[derive(Debug, Clone)]
pub struct RowMap {
    sources: Arc<[u32]>,
    targets: Arc<[u32]>,
}

impl RowMap {
    /// Stands for a row of zeros.
    pub(super) const NONE: u32 = u32::MAX;

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

    pub(super) fn sources(&self) -> &Arc<[u32]> {
        &self.sources
    }

    pub(super) fn targets(&self) -> &Arc<[u32]> {
        &self.targets
    }
}
