//! Every kernel against the plain composition: results, and all gradients of a random projection.

use burn::tensor::{Device, Tensor, TensorData};
use longtake_shared::random::Key;
use rand::Rng as _;
use rayon::ThreadPoolBuilder;

use super::*;

/// Values in ±2, the same for the same seed.
fn random<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
    let mut rng = Key::root(seed).rng();
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| (f64::from(rng.next_u32()) / f64::from(u32::MAX) * 4.0 - 2.0) as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Values of a tensor, on a tape or not.
fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

fn assert_same(name: &str, fused: &[f32], plain: &[f32]) {
    assert_eq!(fused.len(), plain.len(), "{name}");
    let scale = plain.iter().fold(1e-3f32, |largest, value| largest.max(value.abs()));
    for (place, (a, b)) in fused.iter().zip(plain).enumerate() {
        assert!((a - b).abs() <= 1e-5 * scale, "{name}[{place}]: {a}, not {b} (largest {scale})");
    }
}

/// The result of `run` with and without a tape, and the gradients of its inputs under a random projection.
fn gradients<const A: usize, const B: usize, const C: usize, const R: usize>(
    inputs: (Tensor<A>, Tensor<B>, Tensor<C>),
    run: impl Fn(Tensor<A>, Tensor<B>, Tensor<C>) -> Tensor<R>,
) -> [Vec<f32>; 5] {
    let (a, b, c) = inputs;
    let untaped = run(a.clone(), b.clone(), c.clone());
    let (a, b, c) = (a.autodiff().require_grad(), b.autodiff().require_grad(), c.autodiff().require_grad());
    let taped = run(a.clone(), b.clone(), c.clone());
    let projection = random(99, taped.dims()).autodiff();
    let grads = (taped.clone() * projection).sum().backward();
    [
        values(untaped),
        values(taped),
        a.grad(&grads).map(values).unwrap_or_default(),
        b.grad(&grads).map(values).unwrap_or_default(),
        c.grad(&grads).map(values).unwrap_or_default(),
    ]
}

/// Compares both forms on the same inputs.
fn compare<const A: usize, const B: usize, const C: usize, const R: usize>(
    inputs: (Tensor<A>, Tensor<B>, Tensor<C>),
    fused: impl Fn(Tensor<A>, Tensor<B>, Tensor<C>) -> Tensor<R>,
    plain: impl Fn(Tensor<A>, Tensor<B>, Tensor<C>) -> Tensor<R>,
) {
    let ours = gradients(inputs.clone(), fused);
    let composed = gradients(inputs, plain);
    for (name, (ours, composed)) in ["result", "result on the tape", "gradient 1", "gradient 2", "gradient 3"]
        .iter()
        .zip(ours.iter().zip(&composed))
    {
        assert_same(name, ours, composed);
    }
}

fn unused() -> Tensor<1> {
    random(0, [1])
}

#[test]
fn linear_equals_its_composition() {
    for (rows, inputs, outputs) in [(1, 1, 1), (7, 5, 3), (300, 24, 72)] {
        let (x, weight, bias) =
            (random(1, [rows, inputs]), random(2, [outputs, inputs]), random(3, [outputs]));
        compare(
            (x.clone(), weight.clone(), bias),
            |x, w, b| linear(x, w, Some(b)),
            |x, w, b| plain::linear(x, w, Some(b)),
        );
        compare((x, weight, unused()), |x, w, _| linear(x, w, None), |x, w, _| plain::linear(x, w, None));
    }
}

#[test]
fn linear_takes_inputs_that_are_views() {
    let (x, weight) = (random(1, [5, 9]), random(2, [3, 5]));
    compare(
        (x, weight, unused()),
        |x, w, _| linear(x.transpose(), w, None),
        |x, w, _| plain::linear(x.transpose(), w, None),
    );
}

#[test]
fn layer_norm_equals_its_composition() {
    for (rows, width) in [(1, 5), (5, 7), (131, 24), (70, 96)] {
        compare(
            (random(1, [rows, width]), random(2, [width]), random(3, [width])),
            |x, w, b| layer_norm(x, w, b, 1e-5),
            |x, w, b| plain::layer_norm(x, w, b, 1e-5),
        );
    }
}

#[test]
fn gelu_equals_its_composition() {
    for shape in [[1, 1, 1], [3, 5, 7], [2, 100, 101]] {
        compare((random(1, shape) * 3.0, unused(), unused()), |x, _, _| gelu(x), |x, _, _| plain::gelu(x));
    }
}

#[test]
fn gather_equals_its_composition_and_its_inverse_is_the_way_back() {
    let sources = vec![Some(3), None, Some(0), Some(4), None, Some(1)];
    let map = RowMap::new(sources, 5);
    compare(
        (random(1, [2, 5, 3]), unused(), unused()),
        |x, _, _| gather_rows(x, &map),
        |x, _, _| plain::gather_rows(x, &map),
    );
    compare(
        (random(1, [2, 6, 3]), unused(), unused()),
        |x, _, _| scatter_rows(x, &map),
        |x, _, _| plain::gather_rows(x, &map.inverse()),
    );
    let x = random::<3>(1, [2, 5, 3]);
    let back = scatter_rows(gather_rows(x.clone(), &map), &map);
    let kept: Vec<f32> = back.into_data().try_to_vec().unwrap();
    let mut expected: Vec<f32> = x.into_data().try_to_vec().unwrap();
    for image in 0..2 {
        expected[image * 15 + 6..image * 15 + 9].fill(0.0); // row 2 went nowhere
    }
    assert_eq!(kept, expected);
}

#[test]
fn the_bias_equals_its_composition() {
    let index = BiasIndex::new(vec![0, 4, 4, 2, 1, 0, 2, 2, 3], 3, 5);
    compare(
        (random(1, [5, 3]), unused(), unused()),
        |table, _, _| relative_bias(table, &index),
        |table, _, _| plain::relative_bias(table, &index),
    );
}

#[test]
fn attention_equals_its_composition() {
    for (windows, tokens, heads, width) in [(1, 1, 1, 1), (2, 5, 3, 4), (6, 37, 2, 24), (70, 9, 1, 8)] {
        compare(
            (random(1, [windows, tokens, 3, heads, width]), random(2, [heads, tokens, tokens]), unused()),
            |qkv, bias, _| window_attention(qkv, bias, None),
            |qkv, bias, _| plain::window_attention(qkv, bias, None),
        );
    }
}

#[test]
fn masked_attention_equals_its_composition() {
    let labels = vec![1, 1, 1, 1, 0, 0, 2, 2, 0, 1, 2, 2];
    let regions = Regions::new(labels, 4);
    compare(
        (random(1, [6, 4, 3, 2, 5]), random(2, [2, 4, 4]), unused()),
        |qkv, bias, _| window_attention(qkv, bias, Some(&regions)),
        |qkv, bias, _| plain::window_attention(qkv, bias, Some(&regions)),
    );
}

#[test]
fn every_bit_is_the_same_whatever_the_number_of_threads() {
    let run = || {
        let attention =
            gradients((random(1, [40, 30, 3, 2, 8]), random(2, [2, 30, 30]), unused()), |qkv, bias, _| {
                window_attention(qkv, bias, None)
            });
        let norm = gradients((random(1, [1000, 24]), random(2, [24]), random(3, [24])), |x, w, b| {
            layer_norm(x, w, b, 1e-5)
        });
        let linear = gradients((random(1, [3000, 96]), random(2, [64, 96]), random(3, [64])), |x, w, b| {
            linear(x, w, Some(b))
        });
        [attention, norm, linear]
            .map(|results| results.map(|values| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>()))
    };
    let one = ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run);
    for threads in [2, 3] {
        let several = ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
        assert!(one == several, "1 and {threads} threads differ");
    }
}
