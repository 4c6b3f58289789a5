//! How a kernel becomes an operation of burn's flex backend: on plain tensors, and with a backward pass on the tape.

use std::{fmt::Debug, sync::Arc};

use burn::{
    backend::{Autodiff, Backend, Flex, backend_extension, tensor::FloatTensor},
    tensor::{Shape, TensorData},
};
use burn_autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_flex::FlexTensor;

/// A kernel's input: contiguous values, the last axis fastest.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) values: &'a [f32],
    pub(super) shape: &'a [usize],
}

/// A kernel's result.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) values: Vec<f32>,
    pub(super) shape: Vec<usize>,
}

impl Values {
    pub(super) fn new(values: Vec<f32>, shape: &[usize]) -> Self {
        Self { values, shape: shape.to_vec() }
    }

    fn into_tensor(self) -> FlexTensor {
        FlexTensor::from_data(TensorData::new(self.values, Shape::from(self.shape)))
    }
}

/// A kernel of `N` inputs and one result, and its gradients.
pub(super) trait Operation<const N: usize>: Debug + Send + Sync {
    /// The result.
    fn forward(&self, inputs: [View<'_>; N]) -> Values;

    /// Which inputs the backward pass reads; the others are empty there.
    fn keeps(&self) -> [bool; N] {
        [true; N]
    }

    /// Gradients of the inputs that are `wanted`.
    fn backward(&self, inputs: [View<'_>; N], gradient: View<'_>, wanted: [bool; N]) -> [Option<Values>; N];
}

/// Kernels of one, two and three inputs as operations of a backend.
#[backend_extension(Flex, Autodiff)]
pub(super) trait CpuOps: Backend {
    fn call_1(a: FloatTensor<Self>, operation: Arc<dyn Operation<1>>) -> FloatTensor<Self>;

    fn call_2(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        operation: Arc<dyn Operation<2>>,
    ) -> FloatTensor<Self>;

    fn call_3(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        operation: Arc<dyn Operation<3>>,
    ) -> FloatTensor<Self>;
}

impl CpuOps for Flex {
    fn call_1(a: FlexTensor, operation: Arc<dyn Operation<1>>) -> FlexTensor {
        forward([a], operation.as_ref())
    }

    fn call_2(a: FlexTensor, b: FlexTensor, operation: Arc<dyn Operation<2>>) -> FlexTensor {
        forward([a, b], operation.as_ref())
    }

    fn call_3(a: FlexTensor, b: FlexTensor, c: FlexTensor, operation: Arc<dyn Operation<3>>) -> FlexTensor {
        forward([a, b, c], operation.as_ref())
    }
}

impl<C: CheckpointStrategy> CpuOps for Autodiff<Flex, C> {
    fn call_1(a: FloatTensor<Self>, operation: Arc<dyn Operation<1>>) -> FloatTensor<Self> {
        tracked::<1, C>([a], operation)
    }

    fn call_2(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        operation: Arc<dyn Operation<2>>,
    ) -> FloatTensor<Self> {
        tracked::<2, C>([a, b], operation)
    }

    fn call_3(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        operation: Arc<dyn Operation<3>>,
    ) -> FloatTensor<Self> {
        tracked::<3, C>([a, b, c], operation)
    }
}

fn view(tensor: &FlexTensor) -> View<'_> {
    let values = tensor.as_slice::<f32>().expect("the caller made it contiguous, and checked that it is f32");
    View { values, shape: tensor.layout().shape().as_slice() }
}

fn forward<const N: usize>(inputs: [FlexTensor; N], operation: &dyn Operation<N>) -> FlexTensor {
    let inputs = inputs.map(|input| input.to_contiguous());
    operation.forward(inputs.each_ref().map(view)).into_tensor()
}

/// Runs an operation and puts its backward pass on the tape.
fn tracked<const N: usize, C: CheckpointStrategy>(
    inputs: [FloatTensor<Autodiff<Flex, C>>; N],
    operation: Arc<dyn Operation<N>>,
) -> FloatTensor<Autodiff<Flex, C>> {
    let guards = inputs.each_ref().map(FloatTensor::<Autodiff<Flex, C>>::node);
    let inputs = inputs.map(|input| input.into_primitive().to_contiguous());
    let output = operation.forward(inputs.each_ref().map(view)).into_tensor();
    match Tape.prepare::<C>(guards).compute_bound().stateful() {
        OpsKind::Tracked(tape) => {
            let keeps = operation.keeps();
            let mut inputs = inputs;
            for (input, kept) in inputs.iter_mut().zip(keeps) {
                if !kept {
                    *input = Values::new(Vec::new(), &[0]).into_tensor();
                }
            }
            tape.finish(Saved { inputs, operation }, output)
        }
        OpsKind::UnTracked(tape) => tape.finish(output),
    }
}

/// What the backward pass of an operation needs.
#[derive(Debug, Clone)]
struct Saved<const N: usize> {
    inputs: [FlexTensor; N],
    operation: Arc<dyn Operation<N>>,
}

#[derive(Debug)]
struct Tape;

impl<const N: usize> Backward<Flex, N> for Tape {
    type State = Saved<N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let Saved { inputs, operation } = ops.state;
        let results = operation.backward(inputs.each_ref().map(view), view(&gradient), wanted);
        for (parent, result) in ops.parents.into_iter().zip(results) {
            if let (Some(parent), Some(result)) = (parent, result) {
                grads.register::<Flex>(parent.id, result.into_tensor());
            }
        }
    }
}
