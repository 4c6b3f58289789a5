//! Losses of predicted segments against true ones (spec 50, section 5; TALLFormer `vedatad/criteria/losses/iou_loss.py`).

use burn::tensor::Tensor;
use longtake_shared::config::RegressionLoss;

/// Added to unions and enclosing lengths; least union and least IoU of the IoU loss.
const EPSILON: f64 = 1e-6;

/// A loss of each pair, `[N, 2]`, `[N, 2]` -> `[N, 1]`.
pub type SegmentLoss = fn(Tensor<2>, Tensor<2>) -> Tensor<2>;

/// The loss of this kind.
pub fn of_kind(kind: RegressionLoss) -> SegmentLoss {
    match kind {
        RegressionLoss::Diou => diou,
        RegressionLoss::Giou => giou,
        RegressionLoss::Iou => iou,
    }
}

/// `-ln IoU` of each pair. Where the two share no time the loss is that of an IoU of 1e-6, without a gradient.
///
/// # Shapes
/// `[N, 2]`, `[N, 2]` -> `[N, 1]`
pub fn iou(predicted: Tensor<2>, target: Tensor<2>) -> Tensor<2> {
    let (shared, union) = Pair::new(predicted, target).shared_and_union();
    at_least(shared / at_least(union, EPSILON), EPSILON).log().neg()
}

/// `1 - (IoU - (distance of centres / enclosing length)^2)` of each pair.
///
/// # Shapes
/// `[N, 2]`, `[N, 2]` -> `[N, 1]`
pub fn diou(predicted: Tensor<2>, target: Tensor<2>) -> Tensor<2> {
    let pair = Pair::new(predicted, target);
    let apart = (pair.predicted.0.clone() + pair.predicted.1.clone())
        - (pair.target.0.clone() + pair.target.1.clone());
    let enclosing = pair.enclosing().square() + EPSILON;
    let (iou, _) = pair.iou();
    (iou - apart.square() / 4.0 / enclosing).neg() + 1.0
}

/// `1 - (IoU - (enclosing length - union) / enclosing length)` of each pair.
///
/// # Shapes
/// `[N, 2]`, `[N, 2]` -> `[N, 1]`
pub fn giou(predicted: Tensor<2>, target: Tensor<2>) -> Tensor<2> {
    let pair = Pair::new(predicted, target);
    let enclosing = pair.enclosing() + EPSILON;
    let (iou, union) = pair.iou();
    (iou - (enclosing.clone() - union) / enclosing).neg() + 1.0
}

/// Starts and ends of predicted and true segments, each `[N, 1]`.
struct Pair {
    predicted: (Tensor<2>, Tensor<2>),
    target: (Tensor<2>, Tensor<2>),
}

impl Pair {
    fn new(predicted: Tensor<2>, target: Tensor<2>) -> Self {
        let columns = |x: Tensor<2>| (x.clone().narrow(1, 0, 1), x.narrow(1, 1, 1));
        Self { predicted: columns(predicted), target: columns(target) }
    }

    /// Length of the shortest segment that holds both.
    fn enclosing(&self) -> Tensor<2> {
        let end = larger(self.predicted.1.clone(), self.target.1.clone());
        let start = smaller(self.predicted.0.clone(), self.target.0.clone());
        not_negative(end - start)
    }

    /// Length that both share, and length that either covers.
    fn shared_and_union(self) -> (Tensor<2>, Tensor<2>) {
        let end = smaller(self.predicted.1.clone(), self.target.1.clone());
        let start = larger(self.predicted.0.clone(), self.target.0.clone());
        let shared = not_negative(end - start);
        let lengths = (self.predicted.1 - self.predicted.0) + (self.target.1 - self.target.0);
        (shared.clone(), lengths - shared)
    }

    /// Intersection over union, and the union.
    fn iou(self) -> (Tensor<2>, Tensor<2>) {
        let (shared, union) = self.shared_and_union();
        let union = union + EPSILON;
        (shared / union.clone(), union)
    }
}

/// The larger of each pair. Where both are equal, each gets half of the gradient, as PyTorch's `max` of two tensors.
fn larger(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let share = share(&a, &b);
    a * share.clone() + b * (share.neg() + 1.0)
}

/// The smaller of each pair, with gradients as [`larger`].
fn smaller(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    larger(a.neg(), b.neg()).neg()
}

/// 1 where `a` is larger, 0 where `b` is, 1/2 where they are equal; a constant to the tape.
fn share(a: &Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
    let (a, b) = (a.clone().detach(), b.clone().detach());
    let larger = a.clone().greater(b.clone());
    let equal = a.clone().equal(b);
    a.zeros_like().mask_fill(larger, 1.0).mask_fill(equal, 0.5)
}

/// `max(x, 0)` whose gradient at 0 is 1, as PyTorch's `clamp`.
fn not_negative(x: Tensor<2>) -> Tensor<2> {
    at_least(x, 0.0)
}

/// `max(x, least)` whose gradient at `least` is 1, as PyTorch's `clamp`.
fn at_least(x: Tensor<2>, least: f64) -> Tensor<2> {
    let below = x.clone().detach().lower_elem(least);
    x.mask_fill(below, least)
}
