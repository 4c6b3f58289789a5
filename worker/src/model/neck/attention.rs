//! Multi-head attention over time, shared by the TCM (relative positions) and the TDM (banded).

use burn::tensor::{Tensor, activation};

/// Softmax attention of heads that lie in one packed projection.
///
/// `packed` holds queries, keys and values side by side, each `heads * width` wide. `added` is added to the scaled
/// scores: position bias `[1, heads, T, T]` or mask `[1, 1, T, T]`. `weights` maps the attention weights (dropout).
///
/// # Shapes
/// `[B, T, 3 C]` -> `[B, T, C]`
pub fn attend(
    packed: &Tensor<3>,
    heads: usize,
    added: Option<Tensor<4>>,
    weights: impl FnOnce(Tensor<4>) -> Tensor<4>,
) -> Tensor<3> {
    let [batch, length, width] = packed.dims();
    let channels = width / 3;
    let head = channels / heads;
    let part = |index: usize| {
        packed
            .clone()
            .narrow(2, index * channels, channels)
            .reshape([batch, length, heads, head])
            .swap_dims(1, 2)
    };
    let query = part(0) * (head as f64).powf(-0.5);
    let scores = query.matmul(part(1).swap_dims(2, 3));
    let scores = match added {
        Some(added) => scores + added,
        None => scores,
    };
    weights(activation::softmax(scores, 3)).matmul(part(2)).swap_dims(1, 2).reshape([batch, length, channels])
}
