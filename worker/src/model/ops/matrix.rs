//! Strided matrices, and their product.
#![allow(unsafe_code, reason = "the matrix kernels of the crate gemm take pointers")]

use gemm::Parallelism;

/// Products of at least this many multiplications use every thread.
const PARALLEL_FROM: usize = 192 * 192 * 192;

/// A matrix somewhere in a slice: element (r, c) is `values[r * row + c * column]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row: usize,
    pub(super) column: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { values, rows, columns, row: columns, column: 1 }
    }

    /// Rows `row` values apart.
    pub(super) fn strided(values: &'a [f32], rows: usize, columns: usize, row: usize) -> Self {
        Self { values, rows, columns, row, column: 1 }
    }

    /// Rows become columns.
    pub(super) fn transposed(self) -> Self {
        let Self { values, rows, columns, row, column } = self;
        Self { values, rows: columns, columns: rows, row: column, column: row }
    }

    fn is_inside(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row + (self.columns - 1) * self.column < self.values.len()
    }
}

/// Who computes a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// The calling thread.
    One,
    /// All of the pool, if the product is large.
    All,
}

/// `out = scale * a b`, or `out += scale * a b` where `add`; `out` holds whole rows, one after the other.
pub(super) fn product(out: &mut [f32], add: bool, scale: f32, a: Matrix, b: Matrix, threads: Threads) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert!(a.is_inside() && b.is_inside(), "a matrix reaches beyond its values: {m} x {k}, {k} x {n}");
    assert!(b.rows == k && out.len() == m * n, "shapes of a product: {m} x {k}, {} x {n}", b.rows);
    let large = m * n * k >= PARALLEL_FROM && threads == Threads::All;
    let parallelism = if large { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: every element that the strides reach was checked to lie inside the slices, and `out` is borrowed alone.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}
