//! Operations with their own backward pass: fast on the CPU, plain tensor operations elsewhere.

mod rows;
mod tables;

use burn::tensor::{Int, Tensor, TensorData, activation};

pub use rows::RowMap;
pub use tables::{BiasIndex, Regions};

/// Added to the logits of tokens of different regions (spec 10, section 4).
const MASKED: f32 = -100.0;

/// `x W^T + b`.
///
/// # Shapes
/// `[rows, in]`, `[out, in]`, `[out]` -> `[rows, out]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let y = x.matmul(weight.transpose());
    match bias {
        Some(bias) => y + bias.unsqueeze::<2>(),
        None => y,
    }
}

/// Takes rows of each image in the map's order; rows without a source are zeros.
///
/// # Shapes
/// `[B, inputs, C]` -> `[B, outputs, C]`
pub fn gather_rows(x: Tensor<3>, map: &RowMap) -> Tensor<3> {
    select(x, map.sources())
}

/// The way back: row `s` of the result is the row that came from `s`; rows that went nowhere are zeros.
///
/// # Shapes
/// `[B, outputs, C]` -> `[B, inputs, C]`
pub fn scatter_rows(x: Tensor<3>, map: &RowMap) -> Tensor<3> {
    select(x, map.targets())
}

fn select(x: Tensor<3>, sources: &[u32]) -> Tensor<3> {
    let device = x.device();
    let rows: Vec<i32> =
        sources.iter().map(|&row| if row == RowMap::NONE { 0 } else { row as i32 }).collect();
    let keep: Vec<f32> = sources.iter().map(|&row| f32::from(row != RowMap::NONE)).collect();
    let count = sources.len();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device);
    let x = x.select(1, rows);
    if sources.contains(&RowMap::NONE) {
        x * Tensor::<3>::from_data(TensorData::new(keep, [1, count, 1]), &device)
    } else {
        x
    }
}

/// The bias of each pair of tokens from the table of relative positions.
///
/// # Shapes
/// `[entries, heads]` -> `[heads, N, N]`
pub fn relative_bias(table: Tensor<2>, index: &BiasIndex) -> Tensor<3> {
    let [_, heads] = table.dims();
    let entries: Vec<i32> = index.entries().iter().map(|&entry| entry as i32).collect();
    let (count, tokens) = (entries.len(), index.tokens());
    let entries = Tensor::<1, Int>::from_data(TensorData::new(entries, [count]), &table.device());
    table.select(0, entries).transpose().reshape([heads, tokens, tokens])
}

/// Softmax attention within windows; queries are scaled by `d^-1/2`.
///
/// # Shapes
/// `[windows, N, 3, heads, d]`, `[heads, N, N]` -> `[windows, N, heads * d]`; window `w` takes the regions of window
/// `w mod windows of an image`
pub fn window_attention(qkv: Tensor<5>, bias: Tensor<3>, regions: Option<&Regions>) -> Tensor<3> {
    let [windows, tokens, _, heads, width] = qkv.dims();
    let part =
        |number| qkv.clone().narrow(2, number, 1).reshape([windows, tokens, heads, width]).swap_dims(1, 2);
    let queries = part(0) * (width as f64).powf(-0.5);
    let logits = queries.matmul(part(1).swap_dims(2, 3)) + bias.unsqueeze::<4>();
    let logits = match regions {
        Some(regions) => {
            let image = regions.windows();
            let mask = Tensor::<3>::from_data(regions.mask(MASKED), &logits.device());
            let logits = logits.reshape([windows / image, image, heads, tokens * tokens]);
            let logits = logits + mask.reshape([1, image, 1, tokens * tokens]);
            logits.reshape([windows, heads, tokens, tokens])
        }
        None => logits,
    };
    let mixed = activation::softmax(logits, 3).matmul(part(2));
    mixed.swap_dims(1, 2).reshape([windows, tokens, heads * width])
}
