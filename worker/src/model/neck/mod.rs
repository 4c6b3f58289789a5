//! Features of the whole window become a pyramid of consistent features.
//!
//! Takes: backbone features, fresh and remembered, `[B, C, T]`. Gives: one map `[B, C, T_l]` a pyramid level.
//! Next: the head of a family. Read in this order: `temporal_reduction` quarters time, `consistency` lets stale features agree with fresh
//! ones, `tdm` halves time level by level, `fpn` mixes the levels.

/// Temporal reduction: two strided convolutions.
pub mod temporal_reduction;

/// Temporal consistency module: attention over the whole window.
pub mod consistency;

/// Temporal downsampling module: banded attention, one level after another.
pub mod tdm;

/// Feature pyramid network over time.
pub mod fpn;

mod attention;

use burn::tensor::{Tensor, TensorData};

use super::pass::Pass;

pub use attention::attend;

/// Inverted dropout of one site: each sample's entries are drawn from its own key.
///
/// # Shapes
/// `[B, ...]` -> `[B, ...]`
pub(crate) fn dropout<const D: usize>(x: Tensor<D>, pass: Pass<'_>, rate: f64, site: u64) -> Tensor<D> {
    let shape: [usize; D] = x.dims();
    let width = shape[1..].iter().product();
    match pass.dropout(rate, site, width) {
        Some(factors) => {
            let factors = Tensor::<D>::from_data(TensorData::new(factors, shape), &x.device());
            x * factors
        }
        None => x,
    }
}

#[cfg(test)]
mod tests;
