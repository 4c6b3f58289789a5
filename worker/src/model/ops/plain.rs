//! The operations composed of tensor operations, with burn's own backward pass.

use burn::tensor::{Int, Tensor, TensorData, activation};

use super::{BiasIndex, MASKED, Regions, RowMap};

/// See [`super::linear()`].
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let y = x.matmul(weight.transpose());
    match bias {
        Some(bias) => y + bias.unsqueeze::<2>(),
        None => y,
    }
}

/// See [`super::layer_norm`].
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let centred = x.clone() - x.mean_dim(1);
    let variance = centred.clone().square().mean_dim(1);
    let normal = centred / (variance + epsilon).sqrt();
    normal * weight.unsqueeze::<2>() + bias.unsqueeze::<2>()
}

/// See [`super::gelu()`].
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// See [`super::gather_rows`].
pub fn gather_rows(x: Tensor<3>, map: &RowMap) -> Tensor<3> {
    let device = x.device();
    let count = map.outputs();
    let rows: Vec<i32> = (0..count).map(|row| map.source(row).unwrap_or(0) as i32).collect();
    let x = x.select(1, Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device));
    if map.is_full() {
        return x;
    }
    let keep: Vec<f32> = (0..count).map(|row| f32::from(map.source(row).is_some())).collect();
    x * Tensor::<3>::from_data(TensorData::new(keep, [1, count, 1]), &device)
}

/// See [`super::relative_bias`].
pub fn relative_bias(table: Tensor<2>, index: &BiasIndex) -> Tensor<3> {
    let [_, heads] = table.dims();
    let entries: Vec<i32> = index.entries().iter().map(|&entry| entry as i32).collect();
    let (count, tokens) = (entries.len(), index.tokens());
    let entries = Tensor::<1, Int>::from_data(TensorData::new(entries, [count]), &table.device());
    table.select(0, entries).transpose().reshape([heads, tokens, tokens])
}

/// See [`super::window_attention`].
pub fn window_attention(qkv: Tensor<5>, bias: Tensor<3>, regions: Option<&Regions>) -> Tensor<3> {
    let [windows, tokens, _, heads, width] = qkv.dims();
    let parts = qkv.split(1, 2).into_iter();
    let parts = parts.map(|part| part.reshape([windows, tokens, heads, width]).swap_dims(1, 2));
    let [queries, keys, values] = parts.collect::<Vec<_>>().try_into().expect("the third axis has length 3");
    let queries = queries * (width as f64).powf(-0.5);
    let logits = queries.matmul(keys.swap_dims(2, 3)) + bias.unsqueeze::<4>();
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
    let mixed = activation::softmax(logits, 3).matmul(values);
    mixed.swap_dims(1, 2).reshape([windows, tokens, heads * width])
}
