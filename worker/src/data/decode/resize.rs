//! Planes of any size become RGB frames of the configured size: separable triangle filter, widened when shrinking.
//!
//! Takes: Y, Cb and Cr planes. Gives: RGB bytes. Next: `super::super::video` puts them into a block.
//!
//! Planes are resized before the colours are converted (both are linear, so only rounding and clamping could differ):
//! a 320x240 picture shrunk to 56x56 then needs 3,136 colour conversions rather than 76,800.

use super::Picture;
use super::Plane;
use super::colour::ToRgb;

/// How a decoded picture must be turned or mirrored to be upright: the eight orientations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Turn {
    /// Not at all.
    #[default]
    None,
    /// A quarter clockwise.
    Clockwise,
    /// Upside down.
    Half,
    /// A quarter counter-clockwise.
    CounterClockwise,
    /// Left and right change places.
    Mirror,
    /// Top and bottom change places.
    Flip,
    /// Rows become columns: mirrored over the diagonal from the top left.
    Transpose,
    /// Mirrored over the diagonal from the top right.
    AntiTranspose,
}

/// The part of a display matrix that turns: (x, y) becomes (a x + c y, b x + d y), y downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Orientation {
    pub(super) a: i64,
    pub(super) b: i64,
    pub(super) c: i64,
    pub(super) d: i64,
}

impl Orientation {
    /// Of a 3x3 matrix in rows, as files store it (ISO/IEC 14496-12, section 8.2.2).
    pub(super) fn of_matrix(matrix: &[i32]) -> Option<Self> {
        let at = |place: usize| matrix.get(place).copied().map(i64::from);
        Some(Self { a: at(0)?, b: at(1)?, c: at(3)?, d: at(4)? })
    }

    /// This one first, then that of the whole movie. Both are fixed-point numbers with 16 bits behind the point.
    pub(super) fn then(self, movie: Self) -> Self {
        let sum = |(p, q): (i64, i64), (r, s): (i64, i64)| {
            i64::try_from((i128::from(p) * i128::from(q) + i128::from(r) * i128::from(s)) >> 16).unwrap_or(0)
        };
        Self {
            a: sum((self.a, movie.a), (self.b, movie.c)),
            b: sum((self.a, movie.b), (self.b, movie.d)),
            c: sum((self.c, movie.a), (self.d, movie.c)),
            d: sum((self.c, movie.b), (self.d, movie.d)),
        }
    }
}

impl Turn {
    /// The turn that ffmpeg's automatic rotation makes; angles that are not within a degree of a quarter count as none.
    pub(super) fn of(orientation: Orientation) -> Self {
        let Orientation { a, b, c, d } = orientation;
        // A column of zeros shows nothing: such a matrix says nothing about direction.
        if (a, c) == (0, 0) || (b, d) == (0, 0) {
            return Self::None;
        }
        let across = (a as f64).hypot(c as f64);
        let down = (b as f64).hypot(d as f64);
        let degrees = (b as f64 / down).atan2(a as f64 / across).to_degrees().round().rem_euclid(360.0);
        match degrees as u16 {
            0 if d < 0 => Self::Flip,
            90 if c > 0 => Self::Transpose,
            90 => Self::Clockwise,
            180 if d < 0 => Self::Half,
            180 => Self::Mirror,
            270 if c < 0 => Self::AntiTranspose,
            270 => Self::CounterClockwise,
            _ => Self::None,
        }
    }

    /// Size after turning.
    pub(super) fn upright(self, width: usize, height: usize) -> (usize, usize) {
        match self {
            Self::None | Self::Half | Self::Mirror | Self::Flip => (width, height),
            Self::Clockwise | Self::CounterClockwise | Self::Transpose | Self::AntiTranspose => {
                (height, width)
            }
        }
    }

    /// Where the coded pixel at (x, y) of a `width` x `height` picture lies once upright, as (column, row).
    fn place(self, x: usize, y: usize, width: usize, height: usize) -> (usize, usize) {
        match self {
            Self::None => (x, y),
            Self::Clockwise => (height - 1 - y, x),
            Self::Half => (width - 1 - x, height - 1 - y),
            Self::CounterClockwise => (y, width - 1 - x),
            Self::Mirror => (width - 1 - x, y),
            Self::Flip => (x, height - 1 - y),
            Self::Transpose => (y, x),
            Self::AntiTranspose => (height - 1 - y, width - 1 - x),
        }
    }
}

/// Filter taps of one axis: for each output position its first input position and its weights, which sum to 1.
#[derive(Debug)]
struct Taps {
    spans: Vec<(usize, usize)>,
    weights: Vec<f32>,
}

impl Taps {
    /// From `input` to `output` positions. The filter is a triangle over one input position when enlarging and over
    /// `input / output` when shrinking (Pillow's BILINEAR, torchvision's `antialias=True`). `shift` moves the input's
    /// sample grid, in input positions.
    fn new(input: usize, output: usize, shift: f64) -> Self {
        let scale = input as f64 / output as f64;
        let radius = scale.max(1.0);
        let (mut spans, mut weights) = (Vec::with_capacity(output), Vec::new());
        let last = input as f64 - 1.0;
        for position in 0..output {
            let centre = ((position as f64 + 0.5) * scale - 0.5 + shift).clamp(0.0, last);
            let first = (centre - radius).ceil().max(0.0) as usize;
            let end = ((centre + radius).floor().min(last)) as usize + 1;
            let triangle: Vec<f64> =
                (first..end).map(|at| (1.0 - (at as f64 - centre).abs() / radius).max(0.0)).collect();
            let total: f64 = triangle.iter().sum();
            spans.push((first, triangle.len()));
            weights.extend(triangle.iter().map(|weight| (weight / total) as f32));
        }
        Self { spans, weights }
    }
}

/// Resizes planes of one size to another.
#[derive(Debug)]
struct PlaneScaler {
    columns: Taps,
    rows: Taps,
    row: Vec<f32>,
    output: Vec<f32>,
}

impl PlaneScaler {
    fn new(input: (usize, usize), output: (usize, usize), shift_x: f64) -> Self {
        Self {
            columns: Taps::new(input.0, output.0, shift_x),
            rows: Taps::new(input.1, output.1, 0.0),
            row: vec![0.0; input.0],
            output: vec![0.0; output.0 * output.1],
        }
    }

    /// Rows first: that pass runs along whole rows of the input, which the compiler turns into vector code.
    fn run(&mut self, plane: &Plane<'_>) {
        let width = self.row.len();
        let mut row_weights = self.rows.weights.iter();
        let out_width = self.columns.spans.len();
        for (&(first, count), output) in self.rows.spans.iter().zip(self.output.chunks_exact_mut(out_width)) {
            self.row.fill(0.0);
            for (at, &weight) in (first..first + count).zip(&mut row_weights) {
                let input = &plane.data[at * plane.stride..][..width];
                for (sum, &value) in self.row.iter_mut().zip(input) {
                    *sum += weight * f32::from(value);
                }
            }
            let mut weights = self.columns.weights.as_slice();
            for (value, &(first, count)) in output.iter_mut().zip(&self.columns.spans) {
                let (head, tail) = weights.split_at(count);
                *value = self.row[first..first + count]
                    .iter()
                    .zip(head)
                    .map(|(value, weight)| value * weight)
                    .sum();
                weights = tail;
            }
        }
    }
}

/// Turns decoded pictures of one size into upright RGB frames of another.
#[derive(Debug)]
pub(in crate::data) struct Scaler {
    luma: PlaneScaler,
    blue: PlaneScaler,
    red: PlaneScaler,
    colour: ToRgb,
    turn: Turn,
    /// Size before turning.
    size: (usize, usize),
}

/// Chroma samples lie on the left of each pair of luma samples, a quarter of a chroma sample left of its middle
/// (ITU-T H.264, section E.2.1: the default `chroma_sample_loc_type` 0).
const CHROMA_SHIFT: f64 = 0.25;

impl Scaler {
    /// From pictures of `coded` (width, height) to upright frames of `upright` (width, height).
    pub(super) fn new(coded: (usize, usize), upright: (usize, usize), turn: Turn, colour: ToRgb) -> Self {
        let size = turn.upright(upright.0, upright.1);
        let chroma = (coded.0.div_ceil(2), coded.1.div_ceil(2));
        Self {
            luma: PlaneScaler::new(coded, size, 0.0),
            blue: PlaneScaler::new(chroma, size, CHROMA_SHIFT),
            red: PlaneScaler::new(chroma, size, CHROMA_SHIFT),
            colour,
            turn,
            size,
        }
    }

    /// Writes one frame, `[H, W, 3]`; the picture's planes must have the size that the scaler was made for.
    pub(in crate::data) fn write(&mut self, picture: &Picture<'_>, rgb: &mut [u8]) {
        self.luma.run(&picture.y);
        self.blue.run(&picture.cb);
        self.red.run(&picture.cr);
        let (width, height) = self.size;
        let (upright_width, _) = self.turn.upright(width, height);
        let pixels = self.luma.output.iter().zip(&self.blue.output).zip(&self.red.output);
        if self.turn == Turn::None {
            for (((y, cb), cr), out) in pixels.zip(rgb.chunks_exact_mut(3)) {
                out.copy_from_slice(&self.colour.pixel(*y, *cb, *cr));
            }
            return;
        }
        for (at, ((y, cb), cr)) in pixels.enumerate() {
            let (column, row) = self.turn.place(at % width, at / width, width, height);
            let start = (row * upright_width + column) * 3;
            rgb[start..start + 3].copy_from_slice(&self.colour.pixel(*y, *cb, *cr));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::decode::colour::{Matrix, Range};

    fn picture<'a>(y: &'a [u8], chroma: &'a [u8], width: usize) -> Picture<'a> {
        let half = Plane { data: chroma, stride: width.div_ceil(2) };
        Picture { y: Plane { data: y, stride: width }, cb: half, cr: half }
    }

    fn grey(coded: (usize, usize), upright: (usize, usize), turn: Turn, y: &[u8]) -> Vec<u8> {
        let chroma = vec![128; coded.0.div_ceil(2) * coded.1.div_ceil(2)];
        let mut scaler = Scaler::new(coded, upright, turn, ToRgb::new(Matrix::Bt601, Range::Full));
        let mut rgb = vec![0; upright.0 * upright.1 * 3];
        scaler.write(&picture(y, &chroma, coded.0), &mut rgb);
        rgb.chunks(3).map(|pixel| pixel[0]).collect()
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let y: Vec<u8> = (0..6 * 4).map(|value| value * 10).collect();
        assert_eq!(grey((6, 4), (6, 4), Turn::None, &y), y);
    }

    #[test]
    fn shrinking_takes_the_mean_and_a_flat_picture_stays_flat() {
        assert_eq!(grey((4, 2), (1, 1), Turn::None, &[0, 100, 100, 200, 0, 100, 100, 200]), [100]);
        assert!(grey((33, 17), (7, 5), Turn::None, &[77; 33 * 17]).iter().all(|value| *value == 77));
        assert!(grey((3, 3), (11, 9), Turn::None, &[201; 9]).iter().all(|value| *value == 201));
    }

    #[test]
    fn the_filter_is_a_triangle_as_wide_as_the_shrinking() {
        // Weights 2/3, 1, 2/3, 1/3 around the middle of the first three samples: (100/3 + 200/3 + 150/3) / (8/3) = 62.5.
        assert_eq!(grey((6, 1), (2, 1), Turn::None, &[0, 50, 100, 150, 200, 250]), [63, 188]);
    }

    #[test]
    fn turning_is_what_it_says() {
        // 1 2 3      4 1      6 5 4      3 6
        // 4 5 6  ->  5 2  or  3 2 1  or  2 5
        //            6 3                 1 4
        let y = [1, 2, 3, 4, 5, 6];
        assert_eq!(grey((3, 2), (2, 3), Turn::Clockwise, &y), [4, 1, 5, 2, 6, 3]);
        assert_eq!(grey((3, 2), (3, 2), Turn::Half, &y), [6, 5, 4, 3, 2, 1]);
        assert_eq!(grey((3, 2), (2, 3), Turn::CounterClockwise, &y), [3, 6, 2, 5, 1, 4]);
        assert_eq!(grey((3, 2), (3, 2), Turn::Mirror, &y), [3, 2, 1, 6, 5, 4]);
        assert_eq!(grey((3, 2), (3, 2), Turn::Flip, &y), [4, 5, 6, 1, 2, 3]);
        assert_eq!(grey((3, 2), (2, 3), Turn::Transpose, &y), [1, 4, 2, 5, 3, 6]);
        assert_eq!(grey((3, 2), (2, 3), Turn::AntiTranspose, &y), [6, 3, 5, 2, 4, 1]);
    }

    #[test]
    fn a_turn_puts_pixels_where_its_matrix_says() {
        let one = 1 << 16;
        for (a, b, c, d) in [
            (one, 0, 0, one),
            (0, one, -one, 0),
            (-one, 0, 0, -one),
            (0, -one, one, 0),
            (-one, 0, 0, one),
            (one, 0, 0, -one),
            (0, one, one, 0),
            (0, -one, -one, 0),
        ] {
            let turn = Turn::of(Orientation { a, b, c, d });
            // Distances between upright places are those between coded ones, through the matrix.
            let place = |x, y| {
                let (column, row) = turn.place(x, y, 3, 2);
                (column as i64, row as i64)
            };
            let (origin, right, below) = (place(1, 0), place(2, 0), place(1, 1));
            assert_eq!((right.0 - origin.0, right.1 - origin.1), (a / one, b / one), "{turn:?}");
            assert_eq!((below.0 - origin.0, below.1 - origin.1), (c / one, d / one), "{turn:?}");
        }
        for (a, b, c, d) in [(46341, 46341, -46341, 46341), (0, 0, 0, 0), (one, 0, one, 0)] {
            assert_eq!(Turn::of(Orientation { a, b, c, d }), Turn::None);
        }
    }

    #[test]
    fn the_movies_matrix_comes_after_the_tracks() {
        let one = 1 << 16;
        let quarter = Orientation { a: 0, b: one, c: -one, d: 0 };
        let mirror = Orientation { a: -one, b: 0, c: 0, d: one };
        assert_eq!(Turn::of(quarter.then(quarter)), Turn::Half);
        assert_eq!(Turn::of(quarter.then(mirror)), Turn::Transpose);
        assert_eq!(Turn::of(mirror.then(quarter)), Turn::AntiTranspose);
    }
}
