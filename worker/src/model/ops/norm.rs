//! Layer normalisation of rows.

use rayon::prelude::*;

use super::{
    extension::{Operation, Values, View},
    linear::added,
    simd::{sum, sum_pairs, vectorised},
};

/// Rows of one task; fixed, so that gradients do not depend on the number of threads.
const ROWS: usize = 64;

#[derive(Debug)]
pub(super) struct LayerNorm {
    pub(super) epsilon: f32,
}

/// Mean and 1 / sqrt(variance + epsilon) of a row.
#[inline(always)]
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = sum(row) / count;
    let variance = sum_pairs(row, row, |sum, value, _| (value - mean).mul_add(value - mean, sum)) / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// The gradient of one row; adds to those of scale and shift.
#[inline(always)]
fn row_backward(
    result: &mut [f32],
    x: &[f32],
    gradient: &[f32],
    weight: &[f32],
    (scales, shifts): (&mut [f32], &mut [f32]),
    epsilon: f32,
) {
    let count = x.len() as f32;
    let (mean, scale) = moments(x, epsilon);
    for (result, (gradient, weight)) in result.iter_mut().zip(gradient.iter().zip(weight)) {
        *result = gradient * weight;
    }
    let shift = sum(result) / count;
    let slope = sum_pairs(result, x, |sum, value, x| value.mul_add((x - mean) * scale, sum)) / count;
    for ((((result, x), gradient), scales), shifts) in
        result.iter_mut().zip(x).zip(gradient).zip(scales.iter_mut()).zip(shifts.iter_mut())
    {
        let normal = (x - mean) * scale;
        *result = (*result - shift - normal * slope) * scale;
        *scales += gradient * normal;
        *shifts += gradient;
    }
}

vectorised! {
    fn forward(y: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) {
        let width = weight.len();
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let (mean, scale) = moments(x, epsilon);
            for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                *y = ((x - mean) * scale).mul_add(*weight, *bias);
            }
        }
    }
}

vectorised! {
    fn backward(
        result: &mut [f32],
        x: &[f32],
        gradient: &[f32],
        weight: &[f32],
        sums: &mut (Vec<f32>, Vec<f32>),
        epsilon: f32,
    ) {
        let width = weight.len();
        for ((result, x), gradient) in
            result.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(gradient.chunks_exact(width))
        {
            row_backward(result, x, gradient, weight, (&mut sums.0, &mut sums.1), epsilon);
        }
    }
}

impl Operation<3> for LayerNorm {
    fn forward(&self, [x, weight, bias]: [View<'_>; 3]) -> Values {
        let width = x.shape[1];
        let mut y = vec![0.0; x.values.len()];
        y.par_chunks_mut(ROWS * width)
            .zip(x.values.par_chunks(ROWS * width))
            .for_each(|(y, x)| forward(y, x, weight.values, bias.values, self.epsilon));
        Values::new(y, x.shape)
    }

    fn keeps(&self) -> [bool; 3] {
        [true, true, false]
    }

    fn backward(
        &self,
        [x, weight, _]: [View<'_>; 3],
        gradient: View<'_>,
        wanted: [bool; 3],
    ) -> [Option<Values>; 3] {
        let width = x.shape[1];
        let mut result = vec![0.0; x.values.len()];
        let partial: Vec<(Vec<f32>, Vec<f32>)> = result
            .par_chunks_mut(ROWS * width)
            .zip(x.values.par_chunks(ROWS * width))
            .zip(gradient.values.par_chunks(ROWS * width))
            .map(|((result, x), gradient)| {
                let mut sums = (vec![0.0; width], vec![0.0; width]);
                backward(result, x, gradient, weight.values, &mut sums, self.epsilon);
                sums
            })
            .collect();
        let (scales, shifts): (Vec<_>, Vec<_>) = partial.into_iter().unzip();
        [
            wanted[0].then(|| Values::new(result, x.shape)),
            wanted[1].then(|| Values::new(added(scales, width), &[width])),
            wanted[2].then(|| Values::new(added(shifts, width), &[width])),
        ]
    }
}
