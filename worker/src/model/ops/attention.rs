//! Softmax attention within windows. The scores of one head of one window live in a scratch that stays in the cache;
//! the backward pass computes the probabilities again.

use std::{cell::RefCell, ops::Range};

use rayon::prelude::*;

use super::{
    MASKED,
    extension::{Operation, Values, View},
    linear::{add, added},
    matrix::{Matrix, Threads, product},
    simd::{exp, fold, sum, sum_pairs, vectorised},
    tables::Regions,
};

/// Tasks of the backward pass, about: each adds up the bias gradient of one head over some windows. Fixed, so that the
/// sum does not depend on the number of threads.
const TASKS: usize = 32;

thread_local! {
    /// Scores and their gradients, `[N, N]` each.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

#[derive(Debug)]
pub(super) struct WindowAttention {
    pub(super) regions: Option<Regions>,
}

/// Queries, keys, values or their gradients within `[windows, N, 3, heads, d]`.
#[derive(Debug, Clone, Copy)]
struct Shape {
    windows: usize,
    tokens: usize,
    heads: usize,
    width: usize,
}

impl Shape {
    fn of(qkv: View<'_>) -> Self {
        let [windows, tokens, _, heads, width] =
            *qkv.shape.first_chunk().expect("the caller passes a tensor of rank 5");
        Self { windows, tokens, heads, width }
    }

    /// Channels: all heads.
    fn channels(&self) -> usize {
        self.heads * self.width
    }

    fn scale(&self) -> f32 {
        (self.width as f32).sqrt().recip()
    }

    /// Queries (0), keys (1) or values (2) of one head of one window.
    fn part<'a>(&self, qkv: View<'a>, window: usize, part: usize, head: usize) -> Matrix<'a> {
        let row = 3 * self.channels();
        let start = window * self.tokens * row + part * self.channels() + head * self.width;
        Matrix::strided(&qkv.values[start..], self.tokens, self.width, row)
    }

    /// One head of one window within `[windows, N, heads * d]`.
    fn head<'a>(&self, values: &'a [f32], window: usize, head: usize) -> Matrix<'a> {
        let row = self.channels();
        let start = window * self.tokens * row + head * self.width;
        Matrix::strided(&values[start..], self.tokens, self.width, row)
    }

    /// Windows of each task of a head.
    fn groups(&self) -> impl Iterator<Item = Range<usize>> + Clone {
        let groups = TASKS.div_ceil(self.heads.max(1)).clamp(1, self.windows.max(1));
        let size = self.windows.div_ceil(groups).max(1);
        let windows = self.windows;
        (0..windows).step_by(size).map(move |start| start..windows.min(start + size))
    }
}

/// Gradients of queries, keys and values of one head of one window, `[N, d]` each.
type HeadGradients = [Vec<f32>; 3];

impl Operation<2> for WindowAttention {
    fn forward(&self, [qkv, bias]: [View<'_>; 2]) -> Values {
        let shape = Shape::of(qkv);
        let Shape { tokens, heads, width, windows } = shape;
        let mixed: Vec<Vec<f32>> = (0..windows * heads)
            .into_par_iter()
            .map(|task| self.mix(qkv, bias, shape, task / heads, task % heads))
            .collect();
        let mut out = vec![0.0; windows * tokens * shape.channels()];
        out.par_chunks_mut((tokens * shape.channels()).max(1)).zip(mixed.par_chunks(heads.max(1))).for_each(
            |(out, mixed)| {
                for (head, mixed) in mixed.iter().enumerate() {
                    interleave(out, mixed, width, head * width, shape.channels());
                }
            },
        );
        Values::new(out, &[windows, tokens, shape.channels()])
    }

    fn backward(
        &self,
        [qkv, bias]: [View<'_>; 2],
        gradient: View<'_>,
        wanted: [bool; 2],
    ) -> [Option<Values>; 2] {
        let shape = Shape::of(qkv);
        let Shape { tokens, heads, width, windows } = shape;
        let groups: Vec<Range<usize>> = shape.groups().collect();
        let (of_bias, of_parts): (Vec<Vec<f32>>, Vec<Vec<HeadGradients>>) = (0..heads * groups.len())
            .into_par_iter()
            .map(|task| {
                let (head, group) = (task / groups.len(), &groups[task % groups.len()]);
                let mut of_bias = vec![0.0; tokens * tokens];
                let of_parts = group
                    .clone()
                    .map(|window| self.gradients(qkv, bias, gradient, shape, window, head, &mut of_bias))
                    .collect();
                (of_bias, of_parts)
            })
            .unzip();
        let of_parts: Vec<HeadGradients> = of_parts.into_iter().flatten().collect();
        let mut of_qkv = vec![0.0; qkv.values.len()];
        let row = 3 * shape.channels();
        of_qkv.par_chunks_mut((tokens * row).max(1)).enumerate().for_each(|(window, of_qkv)| {
            for head in 0..heads {
                for (part, values) in of_parts[head * windows + window].iter().enumerate() {
                    interleave(of_qkv, values, width, part * shape.channels() + head * width, row);
                }
            }
        });
        let of_bias = wanted[1].then(|| {
            let mut of_bias = of_bias.into_iter();
            let sums = (0..heads)
                .flat_map(|_| added(of_bias.by_ref().take(groups.len()).collect(), tokens * tokens))
                .collect();
            Values::new(sums, bias.shape)
        });
        [wanted[0].then(|| Values::new(of_qkv, qkv.shape)), of_bias]
    }
}

/// Copies rows of `width` values into `out`, whose rows are `row` long, from column `start` on.
fn interleave(out: &mut [f32], values: &[f32], width: usize, start: usize, row: usize) {
    for (out, values) in out.chunks_exact_mut(row).zip(values.chunks_exact(width)) {
        out[start..start + width].copy_from_slice(values);
    }
}

impl WindowAttention {
    /// Labels of a window whose tokens do not all see each other.
    fn labels(&self, window: usize) -> Option<&[u8]> {
        self.regions.as_ref().and_then(|regions| regions.mixed(window % regions.windows()))
    }

    /// The result of one head of one window, `[N, d]`.
    fn mix(&self, qkv: View<'_>, bias: View<'_>, shape: Shape, window: usize, head: usize) -> Vec<f32> {
        let mut mixed = vec![0.0; shape.tokens * shape.width];
        SCRATCH.with_borrow_mut(|[scores, _]| {
            let sums = self.exponentials(scores, qkv, bias, shape, window, head);
            let scores = Matrix::new(scores, shape.tokens, shape.tokens);
            product(&mut mixed, false, 1.0, scores, shape.part(qkv, window, 2, head), Threads::One);
            for (row, sum) in mixed.chunks_exact_mut(shape.width).zip(sums) {
                for value in row {
                    *value /= sum;
                }
            }
        });
        mixed
    }

    /// Leaves `exp(logit - largest logit of the row)` in `scores`, and gives the sum of each row.
    fn exponentials(
        &self,
        scores: &mut Vec<f32>,
        qkv: View<'_>,
        bias: View<'_>,
        shape: Shape,
        window: usize,
        head: usize,
    ) -> Vec<f32> {
        let tokens = shape.tokens;
        scores.resize(tokens * tokens, 0.0);
        let keys = shape.part(qkv, window, 1, head).transposed();
        product(scores, false, shape.scale(), shape.part(qkv, window, 0, head), keys, Threads::One);
        let bias = &bias.values[head * tokens * tokens..][..tokens * tokens];
        let mut sums = vec![0.0; tokens];
        match self.labels(window) {
            Some(labels) => exponentiate_masked(scores, bias, labels, &mut sums),
            None => exponentiate(scores, bias, &mut sums),
        }
        sums
    }

    /// Gradients of queries, keys and values of one head of one window, `[N, d]` each; adds to that of the bias.
    #[allow(clippy::too_many_arguments, reason = "inputs, place and sum of one task of the backward pass")]
    fn gradients(
        &self,
        qkv: View<'_>,
        bias: View<'_>,
        gradient: View<'_>,
        shape: Shape,
        window: usize,
        head: usize,
        of_bias: &mut [f32],
    ) -> HeadGradients {
        let tokens = shape.tokens;
        let mut results = [(); 3].map(|()| vec![0.0; tokens * shape.width]);
        let [of_queries, of_keys, of_values] = &mut results;
        let gradient = shape.head(gradient.values, window, head);
        let part = |part| shape.part(qkv, window, part, head);
        SCRATCH.with_borrow_mut(|[scores, of_scores]| {
            let sums = self.exponentials(scores, qkv, bias, shape, window, head);
            of_scores.resize(tokens * tokens, 0.0);
            product(of_scores, false, 1.0, gradient, part(2).transposed(), Threads::One);
            through_softmax(scores, of_scores, &sums, of_bias);
            let (scores, of_scores) =
                (Matrix::new(scores, tokens, tokens), Matrix::new(of_scores, tokens, tokens));
            product(of_values, false, 1.0, scores.transposed(), gradient, Threads::One);
            product(of_queries, false, shape.scale(), of_scores, part(1), Threads::One);
            product(of_keys, false, shape.scale(), of_scores.transposed(), part(0), Threads::One);
        });
        results
    }
}

/// `exp(logit - largest)` in place; gives the sum.
#[inline(always)]
fn exponentials_of(logits: &mut [f32]) -> f32 {
    let largest = fold(logits, f32::NEG_INFINITY, f32::max, f32::max);
    for logit in logits.iter_mut() {
        *logit = exp(*logit - largest);
    }
    sum(logits)
}

vectorised! {
    /// Products of queries and keys become `exp(logit - largest logit of the row)`; sums of the rows.
    fn exponentiate(scores: &mut [f32], bias: &[f32], sums: &mut [f32]) {
        let tokens = sums.len();
        let rows = scores.chunks_exact_mut(tokens).zip(bias.chunks_exact(tokens));
        for ((scores, bias), sum) in rows.zip(sums) {
            add(scores, bias);
            *sum = exponentials_of(scores);
        }
    }
}

vectorised! {
    /// The same, with keys of other regions lowered.
    fn exponentiate_masked(scores: &mut [f32], bias: &[f32], labels: &[u8], sums: &mut [f32]) {
        let tokens = sums.len();
        let rows = scores.chunks_exact_mut(tokens).zip(bias.chunks_exact(tokens));
        for (((scores, bias), sum), own) in rows.zip(sums).zip(labels) {
            for ((logit, bias), label) in scores.iter_mut().zip(bias).zip(labels) {
                *logit += bias + if label == own { 0.0 } else { MASKED };
            }
            *sum = exponentials_of(scores);
        }
    }
}

vectorised! {
    /// Exponentials become probabilities; their gradients become those of the logits, and are added to the bias's.
    fn through_softmax(scores: &mut [f32], of_scores: &mut [f32], sums: &[f32], of_bias: &mut [f32]) {
        let tokens = sums.len();
        let rows = scores.chunks_exact_mut(tokens).zip(of_scores.chunks_exact_mut(tokens));
        for ((scores, of_scores), (sum, of_bias)) in rows.zip(sums.iter().zip(of_bias.chunks_exact_mut(tokens))) {
            let scale = 1.0 / sum;
            for score in scores.iter_mut() {
                *score *= scale;
            }
            let mean = sum_pairs(scores, of_scores, |sum, probability, gradient| probability.mul_add(gradient, sum));
            for ((gradient, probability), of_bias) in of_scores.iter_mut().zip(scores).zip(of_bias) {
                *gradient = (*gradient - mean) * *probability;
                *of_bias += *gradient;
            }
        }
    }
}
