//! A linear layer: one product with the bias folded in.

use rayon::prelude::*;

use super::{
    extension::{Operation, Values, View},
    matrix::{Matrix, Threads, product},
    simd::vectorised,
};

/// Rows whose partial column sums are added first; fixed, so that the sum does not depend on the number of threads.
const ROWS: usize = 128;

/// `x W^T`, plus a bias where there is a third input.
#[derive(Debug)]
pub(super) struct Linear;

impl Operation<2> for Linear {
    fn forward(&self, [x, weight]: [View<'_>; 2]) -> Values {
        multiplied(x, weight, None)
    }

    fn backward(
        &self,
        [x, weight]: [View<'_>; 2],
        gradient: View<'_>,
        wanted: [bool; 2],
    ) -> [Option<Values>; 2] {
        [
            wanted[0].then(|| gradient_of_input(weight, gradient)),
            wanted[1].then(|| gradient_of_weight(x, gradient)),
        ]
    }
}

impl Operation<3> for Linear {
    fn forward(&self, [x, weight, bias]: [View<'_>; 3]) -> Values {
        multiplied(x, weight, Some(bias))
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
        [
            wanted[0].then(|| gradient_of_input(weight, gradient)),
            wanted[1].then(|| gradient_of_weight(x, gradient)),
            wanted[2].then(|| Values::new(column_sums(gradient), &gradient.shape[1..])),
        ]
    }
}

fn matrix(view: View<'_>) -> Matrix<'_> {
    Matrix::new(view.values, view.shape[0], view.shape[1])
}

fn multiplied(x: View<'_>, weight: View<'_>, bias: Option<View<'_>>) -> Values {
    let (rows, outputs) = (x.shape[0], weight.shape[0]);
    let mut y = vec![0.0; rows * outputs];
    if let Some(bias) = bias {
        y.par_chunks_mut(ROWS * outputs).for_each(|rows| {
            for row in rows.chunks_exact_mut(outputs) {
                row.copy_from_slice(bias.values);
            }
        });
    }
    product(&mut y, bias.is_some(), 1.0, matrix(x), matrix(weight).transposed(), Threads::All);
    Values::new(y, &[rows, outputs])
}

fn gradient_of_input(weight: View<'_>, gradient: View<'_>) -> Values {
    let (rows, inputs) = (gradient.shape[0], weight.shape[1]);
    let mut result = vec![0.0; rows * inputs];
    product(&mut result, false, 1.0, matrix(gradient), matrix(weight), Threads::All);
    Values::new(result, &[rows, inputs])
}

fn gradient_of_weight(x: View<'_>, gradient: View<'_>) -> Values {
    let (outputs, inputs) = (gradient.shape[1], x.shape[1]);
    let mut result = vec![0.0; outputs * inputs];
    product(&mut result, false, 1.0, matrix(gradient).transposed(), matrix(x), Threads::All);
    Values::new(result, &[outputs, inputs])
}

fn column_sums(gradient: View<'_>) -> Vec<f32> {
    let columns = gradient.shape[1];
    let partial: Vec<Vec<f32>> = gradient
        .values
        .par_chunks(ROWS * columns)
        .map(|rows| {
            let mut sums = vec![0.0; columns];
            add_rows(&mut sums, rows);
            sums
        })
        .collect();
    added(partial, columns)
}

vectorised! {
    /// Adds each row to `sums`.
    fn add_rows(sums: &mut [f32], rows: &[f32]) {
        for row in rows.chunks_exact(sums.len()) {
            add(sums, row);
        }
    }
}

/// Adds `row` to `sums`.
#[inline(always)]
pub(super) fn add(sums: &mut [f32], row: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += value;
    }
}

/// Partial sums added in their order.
pub(super) fn added(partial: Vec<Vec<f32>>, length: usize) -> Vec<f32> {
    let mut partial = partial.into_iter();
    let mut sums = partial.next().unwrap_or_else(|| vec![0.0; length]);
    partial.for_each(|part| add(&mut sums, &part));
    sums
}
