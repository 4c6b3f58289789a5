//! GELU, `x Phi(x)`, with the error function.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use rayon::prelude::*;

use super::{
    extension::{Operation, Values, View},
    simd::{erf, exp, vectorised},
};

/// Values of one task.
const VALUES: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Gelu;

/// The normal distribution function.
#[inline(always)]
fn phi(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * FRAC_1_SQRT_2))
}

/// The normal density.
#[inline(always)]
fn density(x: f32) -> f32 {
    const PEAK: f32 = 0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
    PEAK * exp(-0.5 * x * x)
}

vectorised! {
    fn forward(y: &mut [f32], x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * phi(x);
        }
    }
}

vectorised! {
    fn backward(result: &mut [f32], x: &[f32], gradient: &[f32]) {
        for ((result, &x), gradient) in result.iter_mut().zip(x).zip(gradient) {
            *result = gradient * x.mul_add(density(x), phi(x));
        }
    }
}

impl Operation<1> for Gelu {
    fn forward(&self, [x]: [View<'_>; 1]) -> Values {
        let mut y = vec![0.0; x.values.len()];
        y.par_chunks_mut(VALUES).zip(x.values.par_chunks(VALUES)).for_each(|(y, x)| forward(y, x));
        Values::new(y, x.shape)
    }

    fn backward(&self, [x]: [View<'_>; 1], gradient: View<'_>, _: [bool; 1]) -> [Option<Values>; 1] {
        let mut result = vec![0.0; x.values.len()];
        result
            .par_chunks_mut(VALUES)
            .zip(x.values.par_chunks(VALUES))
            .zip(gradient.values.par_chunks(VALUES))
            .for_each(|((result, x), gradient)| backward(result, x, gradient));
        [Some(Values::new(result, x.shape))]
    }
}
