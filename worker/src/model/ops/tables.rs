//! Constants of window attention: which entry of the bias table a pair of tokens takes, and which pairs are masked.

use std::sync::Arc;

use burn::tensor::TensorData;

/// Entry of the bias table of each pair (query, key) of `tokens` tokens.
#[derive(Debug, Clone)]
pub struct BiasIndex {
    entries: Arc<[u32]>,
    tokens: usize,
    table: usize,
}

impl BiasIndex {
    /// `entries` row by row, `[tokens, tokens]`, each below `table`.
    pub fn new(entries: Vec<u32>, tokens: usize, table: usize) -> Self {
        debug_assert_eq!(entries.len(), tokens * tokens);
        Self { entries: entries.into(), tokens, table }
    }

    /// Row by row.
    pub fn entries(&self) -> &[u32] {
        &self.entries
    }

    /// Tokens of a window.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Rows of the table.
    pub fn table(&self) -> usize {
        self.table
    }
}

/// Which tokens of each window of an image may not see each other: those of different regions.
#[derive(Debug, Clone)]
pub struct Regions {
    labels: Arc<[u8]>,
    tokens: usize,
}

impl Regions {
    /// A label for each token, window by window.
    pub fn new(labels: Vec<u8>, tokens: usize) -> Self {
        debug_assert_eq!(labels.len() % tokens, 0);
        Self { labels: labels.into(), tokens }
    }

    /// Windows of an image.
    pub fn windows(&self) -> usize {
        self.labels.len() / self.tokens
    }

    /// Labels of one window.
    pub fn window(&self, number: usize) -> &[u8] {
        &self.labels[number * self.tokens..][..self.tokens]
    }

    /// What is added to the logits: 0 within a region, `masked` between regions, `[windows, tokens, tokens]`.
    pub(super) fn mask(&self, masked: f32) -> TensorData {
        let values: Vec<f32> = (0..self.windows())
            .flat_map(|window| {
                let labels = self.window(window);
                labels.iter().flat_map(move |a| labels.iter().map(move |b| if a == b { 0.0 } else { masked }))
            })
            .collect();
        TensorData::new(values, [self.windows(), self.tokens, self.tokens])
    }
}
