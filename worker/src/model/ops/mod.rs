//! Operations with their own backward pass on the CPU; elsewhere the same functions are plain tensor operations.
//!
//! What an operation computes stands in [`crate::model::ops::plain`]; the kernels are tested against it.
#![allow(clippy::inline_always, reason = "what a vectorised function calls must be compiled along with it")]

mod attention;
mod extension;
mod gelu;
mod linear;
mod matrix;
mod norm;
/// The same operations composed of tensor operations, for every backend.
pub mod plain;
mod rows;
mod simd;
mod tables;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Tensor},
};

use self::extension::{CpuOps as _, Operation};
pub use self::{
    rows::RowMap,
    tables::{BiasIndex, Regions},
};

/// Added to the logits of tokens of different regions (spec 10, section 4).
const MASKED: f32 = -100.0;

/// Whether a tensor lies where the kernels can read it.
fn has_kernels<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device() == Device::flex()
}

fn call<const D: usize, const R: usize>(operation: impl Operation<1> + 'static, x: Tensor<D>) -> Tensor<R> {
    Tensor::from_dispatch(Dispatch::call_1(x.into_dispatch(), Arc::new(operation)))
}

/// `x W^T + b`.
///
/// # Shapes
/// `[rows, in]`, `[out, in]`, `[out]` -> `[rows, out]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    if !has_kernels(&x) {
        return plain::linear(x, weight, bias);
    }
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => Dispatch::call_3(x, weight, bias.into_dispatch(), Arc::new(linear::Linear)),
        None => Dispatch::call_2(x, weight, Arc::new(linear::Linear)),
    })
}

/// Layer normalisation of each row, then scale and shift.
///
/// # Shapes
/// `[rows, C]`, `[C]`, `[C]` -> `[rows, C]`
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<2> {
    if !has_kernels(&x) {
        return plain::layer_norm(x, weight, bias, epsilon);
    }
    let operation = Arc::new(norm::LayerNorm { epsilon: epsilon as f32 });
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::call_3(x, weight, bias.into_dispatch(), operation))
}

/// GELU in its exact form, with the error function.
///
/// # Shapes
/// any -> the same
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if has_kernels(&x) { call(gelu::Gelu, x) } else { plain::gelu(x) }
}

/// Takes rows of each image in the map's order; rows without a source are zeros.
///
/// # Shapes
/// `[B, inputs, C]` -> `[B, outputs, C]`
pub fn gather_rows(x: Tensor<3>, map: &RowMap) -> Tensor<3> {
    if has_kernels(&x) { call(rows::Gather(map.clone()), x) } else { plain::gather_rows(x, map) }
}

/// The way back: row `s` of the result is the row that came from `s`; rows that went nowhere are zeros.
///
/// # Shapes
/// `[B, outputs, C]` -> `[B, inputs, C]`
pub fn scatter_rows(x: Tensor<3>, map: &RowMap) -> Tensor<3> {
    gather_rows(x, &map.inverse())
}

/// The bias of each pair of tokens from the table of relative positions.
///
/// # Shapes
/// `[entries, heads]` -> `[heads, N, N]`
pub fn relative_bias(table: Tensor<2>, index: &BiasIndex) -> Tensor<3> {
    if has_kernels(&table) {
        call(tables::RelativeBias(index.clone()), table)
    } else {
        plain::relative_bias(table, index)
    }
}

/// Softmax attention within windows; queries are scaled by `d^-1/2`. The scores are never kept: the backward pass
/// computes them again.
///
/// # Shapes
/// `[windows, N, 3, heads, d]`, `[heads, N, N]` -> `[windows, N, heads * d]`; window `w` takes the regions of window
/// `w mod windows of an image`
pub fn window_attention(qkv: Tensor<5>, bias: Tensor<3>, regions: Option<&Regions>) -> Tensor<3> {
    if !has_kernels(&qkv) {
        return plain::window_attention(qkv, bias, regions);
    }
    let operation = Arc::new(attention::WindowAttention { regions: regions.cloned() });
    Tensor::from_dispatch(Dispatch::call_2(qkv.into_dispatch(), bias.into_dispatch(), operation))
}
