//! One draw of random changes a window, applied alike to all its frames (spec 40, section 8).

use longtake_shared::config::{AugmentConfig, DataConfig};
use longtake_shared::random::Key;
use rand::seq::SliceRandom as _;

use super::draw::{around_zero, below, chance, unit};

/// What is done to the frames of a window, in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AugmentDraw {
    /// First row of the crop.
    pub top: usize,
    /// First column of the crop.
    pub left: usize,
    /// Change of colours.
    pub photometric: Option<Photometric>,
    /// Rotation in degrees, clockwise.
    pub rotation: Option<f64>,
    /// Whether left and right change places.
    pub flip: bool,
    /// After normalisation, each channel is multiplied by this ...
    pub gain: [f32; 3],
    /// ... and this is added.
    pub bias: [f32; 3],
}

/// Photometric distortion of values from 0 to 255.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Photometric {
    /// Added to all values.
    pub brightness: f32,
    /// What all values are multiplied by.
    pub contrast: f32,
    /// Whether contrast comes before saturation and hue, or after.
    pub contrast_first: bool,
    /// What saturation is multiplied by.
    pub saturation: f32,
    /// Added to hue, in degrees.
    pub hue: f32,
    /// Which channel each channel becomes a copy of.
    pub channels: [usize; 3],
}

impl AugmentDraw {
    /// The draw of one window.
    pub fn draw(key: Key, augment: &AugmentConfig, data: &DataConfig) -> Self {
        let mut rng = key.child("augment", 0).rng();
        // Every number is drawn whether it is used or not, so that switching one change off leaves the others as they were.
        let top = below(&mut rng, data.frame_height.saturating_sub(data.crop) + 1);
        let left = below(&mut rng, data.frame_width.saturating_sub(data.crop) + 1);
        let distorted = chance(&mut rng, augment.photometric);
        let photometric = Photometric::draw(&mut rng);
        let rotated = chance(&mut rng, augment.rotation);
        let angle = around_zero(&mut rng, augment.rotation_degrees);
        let flip = chance(&mut rng, augment.flip);
        let (gain, bias) = (around_zero(&mut rng, augment.gain), around_zero(&mut rng, augment.bias));
        let mut channel = |whole: f64, bound: f64| (whole + around_zero(&mut rng, bound)) as f32;
        Self {
            top,
            left,
            photometric: distorted.then_some(photometric),
            rotation: rotated.then_some(angle),
            flip,
            gain: [(); 3].map(|()| channel(1.0 + gain, augment.channel_gain)),
            bias: [(); 3].map(|()| channel(bias, augment.channel_bias)),
        }
    }

    /// No change but a centred crop: how frames are evaluated, and how the memory is filled.
    pub fn centred(data: &DataConfig) -> Self {
        Self {
            top: data.frame_height.saturating_sub(data.crop) / 2,
            left: data.frame_width.saturating_sub(data.crop) / 2,
            photometric: None,
            rotation: None,
            flip: false,
            gain: [1.0; 3],
            bias: [0.0; 3],
        }
    }
}

/// Bounds of the published distortion (spec 40, section 8, step 4).
const BRIGHTNESS: f64 = 32.0;
const CONTRAST: f64 = 0.5;
const SATURATION: f64 = 0.5;
const HUE: f64 = 18.0;

impl Photometric {
    fn draw(rng: &mut impl rand::Rng) -> Self {
        let mut maybe = |neutral: f64, bound: f64| {
            let (used, offset) = (chance(rng, 0.5), around_zero(rng, bound));
            (if used { neutral + offset } else { neutral }) as f32
        };
        let (brightness, contrast, saturation) =
            (maybe(0.0, BRIGHTNESS), maybe(1.0, CONTRAST), maybe(1.0, SATURATION));
        let contrast_first = chance(rng, 0.5);
        let hue = around_zero(rng, HUE) as f32;
        let mut channels = [0, 1, 2];
        let shuffled = unit(rng) < 0.5;
        let mut order = channels;
        order.shuffle(rng);
        if shuffled {
            channels = order;
        }
        Self { brightness, contrast, contrast_first, saturation, hue, channels }
    }

    /// Changes one pixel, R, G and B from 0 to 255.
    pub(super) fn apply(&self, mut rgb: [f32; 3]) -> [f32; 3] {
        let clamp = |rgb: [f32; 3]| rgb.map(|value| value.clamp(0.0, 255.0));
        rgb = clamp(rgb.map(|value| value + self.brightness));
        if self.contrast_first {
            rgb = clamp(rgb.map(|value| value * self.contrast));
        }
        let [hue, saturation, value] = hsv(rgb);
        rgb = clamp(from_hsv([(hue + self.hue).rem_euclid(360.0), saturation * self.saturation, value]));
        if !self.contrast_first {
            rgb = clamp(rgb.map(|value| value * self.contrast));
        }
        self.channels.map(|channel| rgb[channel])
    }
}

/// Hue in degrees, saturation from 0 to 1, value from 0 to 255 (Smith 1978, as in OpenCV).
fn hsv([red, green, blue]: [f32; 3]) -> [f32; 3] {
    let value = red.max(green).max(blue);
    let range = value - red.min(green).min(blue);
    if range <= 0.0 {
        return [0.0, 0.0, value];
    }
    let hue = if red >= green && red >= blue {
        60.0 * (green - blue) / range
    } else if green >= blue {
        120.0 + 60.0 * (blue - red) / range
    } else {
        240.0 + 60.0 * (red - green) / range
    };
    [hue.rem_euclid(360.0), range / value, value]
}

/// The inverse of [`hsv`].
fn from_hsv([hue, saturation, value]: [f32; 3]) -> [f32; 3] {
    let chroma = value * saturation;
    let channel = |offset: f32| {
        let position = (offset + hue / 60.0).rem_euclid(6.0);
        value - chroma * position.min(4.0 - position).clamp(0.0, 1.0)
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: [f32; 3], b: [f32; 3]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3)
    }

    #[test]
    fn hue_saturation_and_value_are_the_known_ones() {
        for (rgb, expected) in [
            ([255.0, 0.0, 0.0], [0.0, 1.0, 255.0]),
            ([0.0, 200.0, 0.0], [120.0, 1.0, 200.0]),
            ([50.0, 50.0, 100.0], [240.0, 0.5, 100.0]),
            ([200.0, 100.0, 150.0], [330.0, 0.5, 200.0]),
            ([90.0, 90.0, 90.0], [0.0, 0.0, 90.0]),
            ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ] {
            assert!(close(hsv(rgb), expected), "{rgb:?} became {:?}", hsv(rgb));
            assert!(close(from_hsv(expected), rgb), "{expected:?} became {:?}", from_hsv(expected));
        }
    }

    #[test]
    fn a_pixel_is_distorted_as_computed_by_hand() {
        let neutral = Photometric {
            brightness: 0.0,
            contrast: 1.0,
            contrast_first: true,
            saturation: 1.0,
            hue: 0.0,
            channels: [0, 1, 2],
        };
        assert!(close(neutral.apply([10.0, 200.0, 30.0]), [10.0, 200.0, 30.0]));
        let brighter = Photometric { brightness: 20.0, contrast: 1.5, ..neutral };
        assert!(close(brighter.apply([10.0, 20.0, 200.0]), [45.0, 60.0, 255.0]));
        let grey = Photometric { saturation: 0.5, ..neutral };
        assert!(close(grey.apply([200.0, 100.0, 100.0]), [200.0, 150.0, 150.0]));
        let turned = Photometric { hue: 120.0, ..neutral };
        assert!(close(turned.apply([255.0, 0.0, 0.0]), [0.0, 255.0, 0.0]));
        let swapped = Photometric { channels: [2, 0, 1], ..neutral };
        assert!(close(swapped.apply([1.0, 2.0, 3.0]), [3.0, 1.0, 2.0]));
        // Contrast after saturation: 200 x 1.5 is cut to 255 either way, 0.5 saturation makes (255, 127.5, ..) first.
        let late = Photometric { contrast: 1.5, contrast_first: false, saturation: 0.5, ..neutral };
        assert!(close(late.apply([200.0, 0.0, 0.0]), [255.0, 150.0, 150.0]));
        let early = Photometric { contrast_first: true, ..late };
        assert!(close(early.apply([200.0, 0.0, 0.0]), [255.0, 127.5, 127.5]));
    }

    #[test]
    fn draws_follow_the_settings_and_the_key() {
        let data = DataConfig { frame_height: 20, frame_width: 18, crop: 16, ..DataConfig::default() };
        let draws = |augment: &AugmentConfig| -> Vec<AugmentDraw> {
            (0..400).map(|n| AugmentDraw::draw(Key::root(5).child("sample", n), augment, &data)).collect()
        };
        let all = draws(&AugmentConfig { gain: 0.2, channel_gain: 0.05, ..data.augment.clone() });
        assert_eq!(all, draws(&AugmentConfig { gain: 0.2, channel_gain: 0.05, ..data.augment.clone() }));
        let count = |picked: &dyn Fn(&AugmentDraw) -> bool| all.iter().filter(|draw| picked(draw)).count();
        for picked in [
            count(&|draw| draw.flip),
            count(&|draw| draw.photometric.is_some()),
            count(&|draw| draw.rotation.is_some()),
        ] {
            assert!((150..250).contains(&picked), "{picked} of 400");
        }
        assert!(all.iter().all(|draw| draw.top <= 4 && draw.left <= 2));
        assert!(count(&|draw| draw.top == 4) > 0 && count(&|draw| draw.left == 2) > 0);
        assert!(all.iter().flat_map(|draw| draw.gain).all(|gain| (0.75..=1.25).contains(&gain)));
        assert!(all.iter().flat_map(|draw| draw.bias).all(|bias| bias.abs() == 0.0));
        assert!(all.iter().filter_map(|draw| draw.rotation).all(|angle| angle.abs() <= 45.0));

        let none = AugmentConfig { flip: 0.0, photometric: 0.0, rotation: 0.0, ..data.augment.clone() };
        let plain = AugmentDraw { top: 2, left: 1, ..draws(&none)[0] };
        assert_eq!(plain, AugmentDraw::centred(&data));
    }
}
