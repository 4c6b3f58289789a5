//! Draws a frame of a made-up video: soft coloured clouds that drift, shapes in front, a little noise over all.

use longtake_shared::random::Key;
use rand::{Rng as _, RngExt as _};

use super::script::{Outline, Pose, Script, Shape};

/// A picture in 4:2:0, BT.601, limited range.
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) luma: Vec<u8>,
    pub(super) blue: Vec<u8>,
    pub(super) red: Vec<u8>,
}

/// Draws the frames of one video.
pub(super) struct Painter<'s> {
    script: &'s Script,
    /// Clouds, one plane each of the canvas's sizes; they repeat at the edges.
    clouds: [Vec<u8>; 3],
    canvas: Canvas,
}

/// Cells of the clouds along each side.
const CELLS: usize = 6;
/// Brightness of the clouds' channels: dark enough that the shapes stand out.
const CLOUD: std::ops::Range<f32> = 25.0..125.0;

/// Y', Cb, Cr of ITU-R BT.601 in limited range.
fn ycbcr([red, green, blue]: [f32; 3]) -> [f32; 3] {
    let luma = 0.299 * red + 0.587 * green + 0.114 * blue;
    [
        16.0 + luma * 219.0 / 255.0,
        128.0 + (blue - luma) / 1.772 * 224.0 / 255.0,
        128.0 + (red - luma) / 1.402 * 224.0 / 255.0,
    ]
}

impl<'s> Painter<'s> {
    pub(super) fn new(script: &'s Script, width: usize, height: usize) -> Self {
        let mut rng = script.key.child("clouds", 0).rng();
        let cells: Vec<[f32; 3]> =
            (0..CELLS * CELLS).map(|_| ycbcr(std::array::from_fn(|_| rng.random_range(CLOUD)))).collect();
        let half = (width / 2, height / 2);
        let plane = |channel: usize, (width, height): (usize, usize)| -> Vec<u8> {
            (0..width * height)
                .map(|at| {
                    cloud(
                        &cells,
                        channel,
                        (at % width) as f32 / width as f32,
                        (at / width) as f32 / height as f32,
                    )
                })
                .collect()
        };
        Self {
            script,
            clouds: [plane(0, (width, height)), plane(1, half), plane(2, half)],
            canvas: Canvas {
                width,
                height,
                luma: vec![0; width * height],
                blue: vec![0; half.0 * half.1],
                red: vec![0; half.0 * half.1],
            },
        }
    }

    pub(super) fn frame(&mut self, number: usize) -> &Canvas {
        let Canvas { width, height, .. } = self.canvas;
        let half = (width / 2, height / 2);
        let seconds = number as f64 / self.script.fps;
        let moved = |wind: f64, size: usize| {
            ((wind * seconds * height as f64 / 2.0).round() as i64).rem_euclid(size as i64) as usize
        };
        // In whole chroma samples, so that colour and brightness move together.
        let (x, y) = (moved(self.script.wind.0, half.0), moved(self.script.wind.1, half.1));
        shift(&self.clouds[0], &mut self.canvas.luma, width, (2 * x, 2 * y));
        shift(&self.clouds[1], &mut self.canvas.blue, half.0, (x, y));
        shift(&self.clouds[2], &mut self.canvas.red, half.0, (x, y));
        for (shape, pose) in self.script.shapes(number) {
            let [luma, blue, red] = ycbcr(shape.colour);
            paint(&mut self.canvas.luma, (width, height), &shape, pose, luma);
            paint(&mut self.canvas.blue, half, &shape, pose, blue);
            paint(&mut self.canvas.red, half, &shape, pose, red);
        }
        add_noise(&mut self.canvas.luma, &self.script.key.child("noise", number as u64));
        &self.canvas
    }
}

/// Brightness at a place (0 to 1 each way), between four cells' values, smoothly.
fn cloud(cells: &[[f32; 3]], channel: usize, x: f32, y: f32) -> u8 {
    let smooth = |part: f32| part * part * (3.0 - 2.0 * part);
    let (x, y) = (x * CELLS as f32, y * CELLS as f32);
    let (column, row) = (x as usize % CELLS, y as usize % CELLS);
    let (right, below) = (smooth(x.fract()), smooth(y.fract()));
    let cell = |column: usize, row: usize| cells[row % CELLS * CELLS + column % CELLS][channel];
    let above = cell(column, row) * (1.0 - right) + cell(column + 1, row) * right;
    let under = cell(column, row + 1) * (1.0 - right) + cell(column + 1, row + 1) * right;
    (above * (1.0 - below) + under * below).round() as u8
}

fn shift(from: &[u8], to: &mut [u8], width: usize, (x, y): (usize, usize)) {
    let height = from.len() / width;
    for (row, line) in to.chunks_exact_mut(width).enumerate() {
        let start = (row + y) % height * width;
        let source = &from[start..start + width];
        let (left, right) = line.split_at_mut(width - x);
        left.copy_from_slice(&source[x..]);
        right.copy_from_slice(&source[..x]);
    }
}

/// Mixes a shape's value into one plane; edges are smoothed over one sample.
fn paint(plane: &mut [u8], (width, height): (usize, usize), shape: &Shape, pose: Pose, value: f32) {
    let (centre_x, centre_y) = (pose.x * width as f64, pose.y * height as f64);
    let radius = pose.radius * height as f64;
    // A square's and a diamond's corners reach further than their radius, at most by sqrt(2).
    let reach = radius * 1.5 + 1.0;
    let span = |centre: f64, size: usize| {
        let bound = |at: f64| at.clamp(0.0, size as f64) as usize;
        bound((centre - reach).floor())..bound((centre + reach).ceil())
    };
    for row in span(centre_y, height) {
        for column in span(centre_x, width) {
            let (x, y) = (column as f64 + 0.5 - centre_x, row as f64 + 0.5 - centre_y);
            let outside = match shape.outline {
                Outline::Disc => x.hypot(y) - radius,
                Outline::Square => x.abs().max(y.abs()) - radius * 0.9,
                Outline::Diamond => (x.abs() + y.abs()) * std::f64::consts::FRAC_1_SQRT_2 - radius * 0.9,
                Outline::Ring => (x.hypot(y) - radius * 0.75).abs() - radius * 0.3,
            };
            let cover = ((0.5 - outside).clamp(0.0, 1.0) * pose.opacity) as f32;
            let pixel = &mut plane[row * width + column];
            *pixel = (f32::from(*pixel) * (1.0 - cover) + value * cover).round() as u8;
        }
    }
}

/// Adds -3 to 3 to each sample: the sum of two draws of two bits.
fn add_noise(plane: &mut [u8], key: &Key) {
    let mut rng = key.rng();
    for samples in plane.chunks_mut(16) {
        let mut bits = rng.next_u64();
        for sample in samples {
            let noise = (bits & 3) as i16 + (bits >> 2 & 3) as i16 - 3;
            *sample = (i16::from(*sample) + noise).clamp(16, 235) as u8;
            bits >>= 4;
        }
    }
}
