//! Anchors: segments of a few lengths about every position of every level (spec 40, section 5; TALLFormer
//! `vedatad/bridge/meshgrids`).

use longtake_shared::config::HeadConfig;

/// A stretch of time: start and end, in frames from the start of the window.
pub type Segment = [f32; 2];

/// How anchors are laid out: equal over levels but for the stride.
#[derive(Debug, Clone, PartialEq)]
pub struct AnchorGrid {
    strides: Vec<usize>,
    /// Lengths over the stride.
    scales: Vec<f64>,
}

impl AnchorGrid {
    /// Lengths `base 2^(i / n)` strides, i = 0..n.
    pub fn new(strides: &[usize], scales_per_octave: usize, octave_base_scale: f64) -> Self {
        let scales = (0..scales_per_octave)
            .map(|i| octave_base_scale * 2f64.powf(i as f64 / scales_per_octave as f64))
            .collect();
        Self { strides: strides.to_vec(), scales }
    }

    /// As configured.
    pub fn from_config(strides: &[usize], head: &HeadConfig) -> Self {
        Self::new(strides, head.scales_per_octave, head.octave_base_scale)
    }

    /// Anchors a position.
    pub fn per_position(&self) -> usize {
        self.scales.len()
    }

    /// Frames between two positions of each level.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Anchors of `positions` positions of one level: position by position, shortest first. An anchor's centre is its
    /// position times the stride, with no offset by half a cell.
    pub fn level(&self, level: usize, positions: usize) -> Vec<Segment> {
        let stride = self.strides[level];
        let halves: Vec<f32> = self.scales.iter().map(|scale| (stride as f64 * scale) as f32 * 0.5).collect();
        (0..positions)
            .flat_map(|position| {
                let centre = (position * stride) as f32;
                halves.iter().map(move |half| [centre - half, centre + half])
            })
            .collect()
    }

    /// Anchors of all levels, finest level first; `positions` has one entry a level.
    pub fn all(&self, positions: &[usize]) -> Vec<Segment> {
        positions.iter().enumerate().flat_map(|(level, positions)| self.level(level, *positions)).collect()
    }

    /// Which anchors belong to real positions when only the first `frames` frames of the window count: those of the
    /// first ceil(frames / stride) positions of each level.
    pub fn valid(&self, positions: &[usize], frames: usize) -> Vec<bool> {
        positions
            .iter()
            .zip(&self.strides)
            .flat_map(|(positions, stride)| {
                let real = frames.div_ceil(*stride).min(*positions);
                let anchors = self.per_position();
                (0..positions * anchors).map(move |index| index / anchors < real)
            })
            .collect()
    }
}

/// Positions of each level for a window: the first level has one every `strides[0]` frames, each further level half as
/// many, rounding up.
pub fn level_lengths(first: usize, levels: usize) -> Vec<usize> {
    std::iter::successors(Some(first), |length| Some(length.div_ceil(2))).take(levels).collect()
}
