//! Frames become a clip: cropped, changed as the window's draw says, normalised.
//!
//! Takes: `[T, h, w, 3]` u8. Gives: `[3, L, H, W]` f32. Next: [`crate::model::backbone`].

use longtake_shared::config::DataConfig;
use longtake_shared::hint::Hint;
use longtake_shared::units::FrameIndex;

use super::augment::AugmentDraw;
use super::video::FrameBlock;

/// Why frames do not become a clip.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClipError {
    /// A crop that no frame can give.
    #[error("`data.crop` is {crop}, but frames are only {height} x {width}")]
    Crop {
        /// Side of the crop.
        crop: usize,
        /// Rows of a frame.
        height: usize,
        /// Columns of a frame.
        width: usize,
    },
    /// Frames of another size than the settings say.
    #[error("the frames are {found:?}, but `data` asks for {expected:?} (frames x rows x columns x 3)")]
    Shape {
        /// What the settings say.
        expected: [usize; 3],
        /// What came.
        found: [usize; 3],
    },
}

impl Hint for ClipError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Crop { height, width, .. } => {
                Some(format!("set `data.crop` to at most {}", height.min(width)))
            }
            Self::Shape { .. } => Some("remove frames that were decoded under other settings".into()),
        }
    }
}

/// Makes clips of frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Renderer {
    height: usize,
    width: usize,
    crop: usize,
    mean: [f32; 3],
    inverse_std: [f32; 3],
}

impl Renderer {
    /// A renderer of the configured size.
    ///
    /// # Errors
    /// The crop is larger than a frame.
    pub fn new(data: &DataConfig) -> Result<Self, ClipError> {
        let (height, width, crop) = (data.frame_height, data.frame_width, data.crop);
        if crop > height || crop > width {
            return Err(ClipError::Crop { crop, height, width });
        }
        let mean = data.mean.map(|mean| mean as f32);
        let inverse_std = data.std.map(|std| (1.0 / std) as f32);
        Ok(Self { height, width, crop, mean, inverse_std })
    }

    /// The `frames` frames from `first` on as a clip `[3, frames, crop, crop]`. What the block lacks lies outside the
    /// video: zeros after normalisation.
    ///
    /// # Errors
    /// The block's frames have another size.
    pub fn render(
        &self,
        block: &FrameBlock,
        first: FrameIndex,
        frames: usize,
        draw: &AugmentDraw,
    ) -> Result<Vec<f32>, ClipError> {
        let frame_bytes = self.height * self.width * 3;
        if (block.height, block.width) != (self.height, self.width)
            || block.rgb.len() != block.count * frame_bytes
        {
            let found = [block.count, block.height, block.width];
            return Err(ClipError::Shape { expected: [block.count, self.height, self.width], found });
        }
        let pixels = self.crop * self.crop;
        let mut clip = vec![0.0; 3 * frames * pixels];
        let mut picture = vec![[0f32; 3]; pixels];
        let mut rotated = vec![[0f32; 3]; pixels];
        for (frame, rgb) in block.rgb.chunks_exact(frame_bytes).enumerate() {
            let place = block.first.0 + frame as i64 - first.0;
            let Some(place) = usize::try_from(place).ok().filter(|&place| place < frames) else { continue };
            self.cut(rgb, draw, &mut picture);
            if let Some(photometric) = &draw.photometric {
                for pixel in &mut picture {
                    *pixel = photometric.apply(*pixel);
                }
            }
            if let Some(degrees) = draw.rotation {
                rotate(&picture, self.crop, degrees, &mut rotated);
                std::mem::swap(&mut picture, &mut rotated);
            }
            self.normalise(&picture, draw, |channel, pixel, value| {
                clip[(channel * frames + place) * pixels + pixel] = value;
            });
        }
        Ok(clip)
    }

    fn cut(&self, rgb: &[u8], draw: &AugmentDraw, picture: &mut [[f32; 3]]) {
        // A draw for larger frames than these would reach beyond the edge.
        let top = draw.top.min(self.height - self.crop);
        let left = draw.left.min(self.width - self.crop);
        for (row, pixels) in picture.chunks_exact_mut(self.crop).enumerate() {
            let start = ((top + row) * self.width + left) * 3;
            for (pixel, rgb) in pixels.iter_mut().zip(rgb[start..].chunks_exact(3)) {
                *pixel = [rgb[0], rgb[1], rgb[2]].map(f32::from);
            }
        }
    }

    /// Flips, normalises, and changes gain and bias.
    fn normalise(&self, picture: &[[f32; 3]], draw: &AugmentDraw, mut put: impl FnMut(usize, usize, f32)) {
        for (row, pixels) in picture.chunks_exact(self.crop).enumerate() {
            for (column, rgb) in pixels.iter().enumerate() {
                let column = if draw.flip { self.crop - 1 - column } else { column };
                for (channel, value) in rgb.iter().enumerate() {
                    let normal = (value - self.mean[channel]) * self.inverse_std[channel];
                    put(channel, row * self.crop + column, normal * draw.gain[channel] + draw.bias[channel]);
                }
            }
        }
    }
}

/// Rotates a square picture clockwise about its centre, bilinearly; beyond its edges it is mirrored without repeating
/// the edge (`reflect-101`), as in mmcv's `imrotate`.
fn rotate(picture: &[[f32; 3]], side: usize, degrees: f64, rotated: &mut [[f32; 3]]) {
    let (sine, cosine) = degrees.to_radians().sin_cos();
    let centre = (side as f64 - 1.0) / 2.0;
    let at = |row: i64, column: i64| picture[mirror(row, side) * side + mirror(column, side)];
    for (index, pixel) in rotated.iter_mut().enumerate() {
        let (y, x) = ((index / side) as f64 - centre, (index % side) as f64 - centre);
        let (from_x, from_y) = (centre + cosine * x + sine * y, centre - sine * x + cosine * y);
        let (column, row) = (from_x.floor(), from_y.floor());
        let (right, down) = ((from_x - column) as f32, (from_y - row) as f32);
        let (column, row) = (column as i64, row as i64);
        let corners = [
            (at(row, column), (1.0 - right) * (1.0 - down)),
            (at(row, column + 1), right * (1.0 - down)),
            (at(row + 1, column), (1.0 - right) * down),
            (at(row + 1, column + 1), right * down),
        ];
        *pixel = [0, 1, 2].map(|channel| corners.iter().map(|(rgb, weight)| rgb[channel] * weight).sum());
    }
}

/// The position within 0 to `length` - 1 that a position beyond mirrors: ... 2 1 | 0 1 2 3 | 2 1 ...
fn mirror(position: i64, length: usize) -> usize {
    let period = 2 * (length as i64 - 1).max(1);
    let folded = position.rem_euclid(period);
    (folded.min(period - folded) as usize).min(length - 1)
}

#[cfg(test)]
mod tests {
    use longtake_shared::random::Key;
    use proptest::prelude::*;

    use super::super::augment::Photometric;
    use super::*;

    fn config(height: usize, width: usize, crop: usize) -> DataConfig {
        DataConfig {
            frame_height: height,
            frame_width: width,
            crop,
            mean: [10.0, 20.0, 30.0],
            std: [2.0, 4.0, 5.0],
            ..DataConfig::default()
        }
    }

    fn block(first: i64, count: usize, height: usize, width: usize) -> FrameBlock {
        let mut rgb = vec![0; count * height * width * 3];
        Key::root(1).rng().fill_bytes(&mut rgb);
        FrameBlock { first: FrameIndex(first), count, height, width, rgb }
    }

    #[test]
    fn a_clip_is_cropped_and_normalised_as_computed_by_hand() {
        // Two frames of 2 x 3; R, G and B are 100 frame + 10 row + column, plus 0, 1 and 2.
        let rgb = (0..2u8)
            .flat_map(|frame| {
                (0..2u8).flat_map(move |row| (0..3u8).map(move |column| 100 * frame + 10 * row + column))
            })
            .flat_map(|value| [value, value + 1, value + 2])
            .collect();
        let block = FrameBlock { first: FrameIndex(0), count: 2, height: 2, width: 3, rgb };
        let data = config(2, 3, 2);
        let draw = AugmentDraw {
            left: 1,
            gain: [1.0, 2.0, 1.0],
            bias: [0.0, 0.5, 0.0],
            ..AugmentDraw::centred(&data)
        };
        let clip = Renderer::new(&data).unwrap().render(&block, FrameIndex(-1), 3, &draw).unwrap();
        let expect = |values: [f32; 8], mean: f32, std: f32, gain: f32, bias: f32| {
            let shown = values.map(|value| (value - mean) / std * gain + bias);
            [[0.0; 4].as_slice(), shown.as_slice()].concat()
        };
        let red = [1.0, 2.0, 11.0, 12.0, 101.0, 102.0, 111.0, 112.0];
        let expected = [
            expect(red, 10.0, 2.0, 1.0, 0.0),
            expect(red.map(|value| value + 1.0), 20.0, 4.0, 2.0, 0.5),
            expect(red.map(|value| value + 2.0), 30.0, 5.0, 1.0, 0.0),
        ]
        .concat();
        assert_eq!(clip.len(), expected.len());
        for (value, expected) in clip.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-4, "{value} is not {expected}");
        }
    }

    #[test]
    fn all_frames_are_changed_alike() {
        let data = config(12, 12, 8);
        let mut block = block(0, 1, 12, 12);
        block.rgb = block.rgb.repeat(3);
        block.count = 3;
        let augment = longtake_shared::config::AugmentConfig {
            photometric: 1.0,
            rotation: 1.0,
            gain: 0.2,
            channel_bias: 0.1,
            ..data.augment.clone()
        };
        let draw = AugmentDraw::draw(Key::root(9), &augment, &data);
        let clip = Renderer::new(&data).unwrap().render(&block, FrameIndex(0), 3, &draw).unwrap();
        for channel in clip.chunks_exact(3 * 64) {
            assert_eq!(channel[..64], channel[64..128]);
            assert_eq!(channel[..64], channel[128..]);
        }
    }

    #[test]
    fn a_flip_mirrors_rows_and_twice_is_nothing() {
        let data = config(6, 6, 6);
        let (renderer, block) = (Renderer::new(&data).unwrap(), block(0, 1, 6, 6));
        let plain = AugmentDraw::centred(&data);
        let straight = renderer.render(&block, FrameIndex(0), 1, &plain).unwrap();
        let flipped =
            renderer.render(&block, FrameIndex(0), 1, &AugmentDraw { flip: true, ..plain }).unwrap();
        for (row, mirrored) in straight.chunks_exact(6).zip(flipped.chunks_exact(6)) {
            assert!(row.iter().eq(mirrored.iter().rev()));
        }
    }

    #[test]
    fn rotations_by_right_angles_move_pixels_clockwise() {
        let picture: Vec<[f32; 3]> = (0..9).map(|value| [value as f32; 3]).collect();
        let turn = |degrees| {
            let mut rotated = vec![[0.0; 3]; 9];
            rotate(&picture, 3, degrees, &mut rotated);
            rotated.iter().map(|rgb| rgb[0].round() as i32).collect::<Vec<_>>()
        };
        assert_eq!(turn(0.0), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(turn(90.0), [6, 3, 0, 7, 4, 1, 8, 5, 2]);
        assert_eq!(turn(-90.0), [2, 5, 8, 1, 4, 7, 0, 3, 6]);
        assert_eq!(turn(180.0), [8, 7, 6, 5, 4, 3, 2, 1, 0]);
        let mut rotated = vec![[0.0; 3]; 9];
        rotate(&picture, 3, 45.0, &mut rotated);
        // The top left corner comes from (1 - sqrt 2) columns right of the centre's column: between 3 and its mirror image.
        let beyond = 2f32.sqrt() - 1.0;
        assert!((rotated[0][0] - (3.0 + beyond)).abs() < 1e-5, "{:?}", rotated[0]);
    }

    proptest! {
        #[test]
        fn mirrored_positions_lie_within(position in -1000i64..1000, length in 1usize..40) {
            let mirrored = mirror(position, length);
            prop_assert!(mirrored < length);
            if (0..length as i64).contains(&position) {
                prop_assert_eq!(mirrored as i64, position);
            }
        }

        #[test]
        fn rotating_keeps_what_is_uniform(degrees in -45.0f64..45.0) {
            let mut rotated = vec![[0.0; 3]; 49];
            rotate(&[[7.0, 8.0, 9.0]; 49], 7, degrees, &mut rotated);
            prop_assert!(rotated.iter().all(|rgb| (rgb[0] - 7.0).abs() < 1e-4 && (rgb[2] - 9.0).abs() < 1e-4));
        }
    }

    #[test]
    fn distortion_comes_before_normalisation() {
        let data = config(1, 1, 1);
        let block = FrameBlock { first: FrameIndex(0), count: 1, height: 1, width: 1, rgb: vec![10, 20, 30] };
        let photometric = Photometric {
            brightness: 2.0,
            contrast: 1.0,
            contrast_first: true,
            saturation: 1.0,
            hue: 0.0,
            channels: [1, 1, 1],
        };
        let draw = AugmentDraw { photometric: Some(photometric), ..AugmentDraw::centred(&data) };
        let clip = Renderer::new(&data).unwrap().render(&block, FrameIndex(0), 1, &draw).unwrap();
        for (value, expected) in
            clip.iter().zip([(22.0 - 10.0) / 2.0, (22.0 - 20.0) / 4.0, (22.0 - 30.0) / 5.0])
        {
            assert!((value - expected).abs() < 1e-5, "{value} is not {expected}");
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(Renderer::new(&config(8, 6, 7)), Err(ClipError::Crop { crop: 7, height: 8, width: 6 }));
        let renderer = Renderer::new(&config(8, 8, 7)).unwrap();
        let draw = AugmentDraw::centred(&config(8, 8, 7));
        let wrong = renderer.render(&block(0, 2, 8, 6), FrameIndex(0), 2, &draw);
        assert_eq!(wrong, Err(ClipError::Shape { expected: [2, 8, 8], found: [2, 8, 6] }));
    }
}
