//! A sum over ranks as an operation of the tape: forward sums values, backward sums gradients.

use std::fmt;
use std::sync::Arc;

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData, try_read_sync};

/// Sums small vectors over all ranks of a generation. Every rank calls it as often, with as many values, in the same
/// order. An implementation that cannot reach the others remembers why and fills the values with NaN, so that the step
/// is judged not finite; it does not block for ever.
pub trait MomentsReducer: Send + Sync + fmt::Debug {
    /// Replaces each value by its sum over ranks.
    fn sum(&self, values: &mut [f32]);
}

/// One process: a sum over ranks changes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalMoments;

impl MomentsReducer for LocalMoments {
    fn sum(&self, _values: &mut [f32]) {}
}

/// The sum over ranks of `x`. Its adjoint is the sum over ranks of the gradient: every rank's loss depends on every
/// rank's values.
///
/// # Shapes
/// `[N]` -> `[N]`
pub(super) fn all_reduce(x: Tensor<1>, reducer: &Arc<dyn MomentsReducer>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as MomentsOps>::sum_over_ranks(x.into_dispatch(), Arc::clone(reducer)))
}

/// The operation on each backend.
#[backend_extension(Flex, Cube: cfg(feature = "cuda"), Autodiff)]
pub(super) trait MomentsOps: Backend {
    /// Sums over ranks through host memory: the vectors are a few thousand numbers.
    fn sum_over_ranks(x: FloatTensor<Self>, reducer: Arc<dyn MomentsReducer>) -> FloatTensor<Self> {
        let device = x.device();
        let data = try_read_sync(Self::float_into_data(x))
            .and_then(Result::ok)
            .expect("a device that computes can be read; burn itself panics where it cannot");
        let shape = data.shape().clone();
        let mut values: Vec<f32> = data.iter::<f32>().collect();
        reducer.sum(&mut values);
        Self::float_from_data(TensorData::new(values, shape), &device)
    }
}

impl MomentsOps for Flex {}

#[cfg(feature = "cuda")]
impl MomentsOps for burn::backend::Cube {}

#[derive(Debug)]
struct SumOverRanks;

impl<B: MomentsOps> Backward<B, 1> for SumOverRanks {
    type State = Arc<dyn MomentsReducer>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let reducer = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| B::sum_over_ranks(grad, reducer));
    }
}

impl<B: MomentsOps, C: CheckpointStrategy> MomentsOps for Autodiff<B, C> {
    fn sum_over_ranks(x: FloatTensor<Self>, reducer: Arc<dyn MomentsReducer>) -> FloatTensor<Self> {
        let guard = x.node();
        let sum = B::sum_over_ranks(x.into_primitive(), Arc::clone(&reducer));
        match SumOverRanks.prepare::<C>([guard]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(reducer, sum),
            OpsKind::UnTracked(prep) => prep.finish(sum),
        }
    }
}
