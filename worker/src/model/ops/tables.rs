//! Constants of window attention: which entry of the bias table a pair of tokens takes, and which pairs are masked.

use std::sync::Arc;

use burn::tensor::TensorData;
use rayon::prelude::*;

use super::extension::{Operation, Values, View};

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

    /// Labels of a window in which they differ; nothing where all tokens see each other.
    pub(super) fn mixed(&self, number: usize) -> Option<&[u8]> {
        let labels = self.window(number);
        labels.iter().any(|label| *label != labels[0]).then_some(labels)
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

/// The bias of each pair of tokens, `[entries, heads]` -> `[heads, N, N]`.
#[derive(Debug)]
pub(super) struct RelativeBias(pub(super) BiasIndex);

impl Operation<1> for RelativeBias {
    fn forward(&self, [table]: [View<'_>; 1]) -> Values {
        let (heads, tokens) = (table.shape[1], self.0.tokens);
        let mut bias = vec![0.0; heads * tokens * tokens];
        bias.par_chunks_mut((tokens * tokens).max(1)).enumerate().for_each(|(head, bias)| {
            for (bias, &entry) in bias.iter_mut().zip(self.0.entries.iter()) {
                *bias = table.values[entry as usize * heads + head];
            }
        });
        Values::new(bias, &[heads, tokens, tokens])
    }

    fn keeps(&self) -> [bool; 1] {
        [false]
    }

    fn backward(&self, _: [View<'_>; 1], gradient: View<'_>, _: [bool; 1]) -> [Option<Values>; 1] {
        let (heads, pairs) = (gradient.shape[0], self.0.entries.len());
        let by_head: Vec<Vec<f32>> = gradient
            .values
            .par_chunks(pairs.max(1))
            .map(|gradient| {
                let mut sums = vec![0.0; self.0.table];
                for (gradient, &entry) in gradient.iter().zip(self.0.entries.iter()) {
                    sums[entry as usize] += gradient;
                }
                sums
            })
            .collect();
        let table = (0..self.0.table * heads).map(|cell| by_head[cell % heads][cell / heads]).collect();
        [Some(Values::new(table, &[self.0.table, heads]))]
    }
}
