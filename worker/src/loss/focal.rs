//! Sigmoid focal loss (spec 50, section 4; TALLFormer `vedatad/criteria/losses/focal_loss.py`).

use burn::tensor::{Tensor, activation};

/// Loss of each logit, not summed. `targets` is 0 or 1.
///
/// With z the logit turned so that larger is worse, the error probability is sigmoid(z) and the cross entropy
/// softplus(z) = -log sigmoid(-z): finite with finite gradients for any finite logit.
///
/// # Shapes
/// `[..]`, `[..]` -> `[..]`
pub fn sigmoid_focal<const D: usize>(
    logits: Tensor<D>,
    targets: Tensor<D>,
    alpha: f64,
    gamma: f64,
) -> Tensor<D> {
    let z = logits * (targets.clone() * -2.0 + 1.0);
    let balance = targets * (2.0 * alpha - 1.0) + (1.0 - alpha);
    let cross_entropy = activation::log_sigmoid(z.clone().neg()).neg();
    balance * activation::sigmoid(z).powf_scalar(gamma) * cross_entropy
}
