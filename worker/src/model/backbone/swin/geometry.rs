//! Which tokens share an attention window, where they lie, and which bias a pair of them gets (spec 10, sections 3 and 4).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::model::ops::{BiasIndex, Regions, RowMap};

/// Lengths along time, height and width.
pub(super) type Size = [usize; 3];

/// An attention window and the shift of every other block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Window {
    pub(super) size: Size,
    pub(super) shift: Size,
}

impl Window {
    /// What is left of the window on a stage of this size: an axis no longer than the window becomes the window, unshifted.
    pub(super) fn fit(self, stage: Size) -> Self {
        let clipped = |axis: usize| stage[axis] <= self.size[axis];
        Self {
            size: std::array::from_fn(|axis| stage[axis].min(self.size[axis])),
            shift: std::array::from_fn(|axis| if clipped(axis) { 0 } else { self.shift[axis] }),
        }
    }

    fn is_shifted(&self) -> bool {
        self.shift.iter().any(|&shift| shift > 0)
    }

    fn tokens(&self) -> usize {
        self.size.iter().product()
    }
}

/// Everything about one block's attention that depends on sizes only.
#[derive(Debug)]
pub(super) struct Layout {
    /// Stage rows to window rows; shift, padding and partition in one gather.
    pub(super) rows: RowMap,
    /// Windows of one image.
    pub(super) windows: usize,
    /// Tokens of one window.
    pub(super) tokens: usize,
    /// Which tokens of a shifted window may not see each other.
    pub(super) regions: Option<Regions>,
    /// Entry of the bias table of each pair of tokens.
    pub(super) bias: Arc<BiasIndex>,
}

impl Layout {
    fn new(stage: Size, full: Window, bias: Arc<BiasIndex>) -> Self {
        let window = full.fit(stage);
        let padded = std::array::from_fn(|axis| stage[axis].next_multiple_of(window.size[axis]));
        let grid: Size = std::array::from_fn(|axis| padded[axis] / window.size[axis]);
        let order = partition(grid, window.size);
        let sources = order.iter().map(|cell| source_row(*cell, stage, padded, window.shift)).collect();
        let regions = window.is_shifted().then(|| {
            let labels = order.iter().map(|cell| region(*cell, padded, window)).collect();
            Regions::new(labels, window.tokens())
        });
        Self {
            rows: RowMap::new(sources, stage.iter().product()),
            windows: grid.iter().product(),
            tokens: window.tokens(),
            regions,
            bias,
        }
    }
}

/// The padded grid's cells in window order: window by window (time slowest), token by token within a window.
fn partition(grid: Size, window: Size) -> Vec<Size> {
    cells(grid)
        .flat_map(|block| {
            cells(window)
                .map(move |token| std::array::from_fn(|axis| block[axis] * window[axis] + token[axis]))
        })
        .collect()
}

/// Every cell of a grid, the last axis fastest.
fn cells(size: Size) -> impl Iterator<Item = Size> {
    (0..size[0]).flat_map(move |d| (0..size[1]).flat_map(move |h| (0..size[2]).map(move |w| [d, h, w])))
}

/// The stage row that a cell of the rolled, padded grid holds; nothing for padding.
fn source_row(cell: Size, stage: Size, padded: Size, shift: Size) -> Option<usize> {
    let at: Size = std::array::from_fn(|axis| (cell[axis] + shift[axis]) % padded[axis]);
    (0..3).all(|axis| at[axis] < stage[axis]).then(|| (at[0] * stage[1] + at[1]) * stage[2] + at[2])
}

/// The region number of a cell: each shifted axis splits at minus the window and at minus the shift.
fn region(cell: Size, padded: Size, window: Window) -> u8 {
    let label = |axis: usize| {
        let (at, length) = (cell[axis], padded[axis]);
        // Python's slice `-0:` is the whole axis and is written last: an unshifted axis has a single label.
        if window.shift[axis] == 0 || at >= length - window.shift[axis] {
            2
        } else {
            u8::from(at >= length - window.size[axis])
        }
    };
    label(0) * 9 + label(1) * 3 + label(2)
}

/// Entries of the bias table for the first `tokens` tokens of the full window's raster.
///
/// A clipped window takes the top left corner of the full matrix, so that token k counts as cell k of the full raster.
/// Pretrained weights expect it (spec 10, section 4).
pub fn bias_index(window: [usize; 3], tokens: usize) -> BiasIndex {
    let raster: Vec<Size> = cells(window).take(tokens).collect();
    let spans = window.map(|length| 2 * length - 1);
    let mut entries = Vec::with_capacity(tokens * tokens);
    for query in &raster {
        for key in &raster {
            let entry = (0..3)
                .fold(0, |entry, axis| entry * spans[axis] + (query[axis] + window[axis] - 1 - key[axis]));
            entries.push(entry as u32);
        }
    }
    BiasIndex::new(entries, tokens, spans.iter().product())
}

/// Source rows of patch merging: four spatial neighbours become one row of four times the width, in the order
/// (even, even), (odd, even), (even, odd), (odd, odd) of (height, width); odd lengths are padded with zeros.
pub(super) fn merging_rows(stage: Size) -> RowMap {
    let [depth, height, width] = stage;
    let sources = cells([depth, height.div_ceil(2), width.div_ceil(2)])
        .flat_map(|[d, h, w]| {
            [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(dh, dw)| {
                let (h, w) = (2 * h + dh, 2 * w + dw);
                (h < height && w < width).then(|| (d * height + h) * width + w)
            })
        })
        .collect();
    RowMap::new(sources, depth * height * width)
}

/// Source rows of the patch embedding, where a row is one patch's pixels along the width: clips
/// `[3, frames, height, width]` become `[frames / pf, height / ph, width / pw, 3, pf, ph]` rows of `pw` pixels.
/// `size` is in pixels, a multiple of the patch along the width; frames and height are padded with zeros.
pub(super) fn patch_rows(size: Size, patch: Size) -> RowMap {
    let [frames, height, width] = [size[0], size[1], size[2] / patch[2]];
    let sources = cells([frames.div_ceil(patch[0]), height.div_ceil(patch[1]), width])
        .flat_map(|[d, h, w]| {
            cells([3, patch[0], patch[1]]).map(move |[channel, pd, ph]| {
                let (frame, row) = (d * patch[0] + pd, h * patch[1] + ph);
                (frame < frames && row < height)
                    .then(|| ((channel * frames + frame) * height + row) * width + w)
            })
        })
        .collect();
    RowMap::new(sources, 3 * frames * height * width)
}

/// What was computed once for each size; shared by every copy of a model.
#[derive(Debug, Clone, Default)]
pub struct Geometry(Arc<Mutex<Tables>>);

#[derive(Debug, Default)]
struct Tables {
    layouts: BTreeMap<(Size, Window), Arc<Layout>>,
    biases: BTreeMap<(Size, usize), Arc<BiasIndex>>,
    mergings: BTreeMap<Size, Arc<RowMap>>,
    patches: BTreeMap<(Size, Size), Arc<RowMap>>,
}

impl Geometry {
    pub(super) fn layout(&self, stage: Size, window: Window) -> Arc<Layout> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = &mut *tables;
        let tokens = window.fit(stage).tokens();
        let bias = tables
            .biases
            .entry((window.size, tokens))
            .or_insert_with(|| Arc::new(bias_index(window.size, tokens)));
        tables
            .layouts
            .entry((stage, window))
            .or_insert_with(|| Arc::new(Layout::new(stage, window, bias.clone())))
            .clone()
    }

    pub(super) fn merging(&self, stage: Size) -> Arc<RowMap> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.mergings.entry(stage).or_insert_with(|| Arc::new(merging_rows(stage))).clone()
    }

    pub(super) fn patches(&self, size: Size, patch: Size) -> Arc<RowMap> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.patches.entry((size, patch)).or_insert_with(|| Arc::new(patch_rows(size, patch))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_matrix_has_the_published_entries() {
        let index = bias_index([8, 7, 7], 392);
        let at = |i: usize, j: usize| index.entries()[i * 392 + j];
        assert_eq!([at(0, 0), at(0, 1), at(0, 7), at(0, 49)], [1267, 1266, 1254, 1098]);
        assert_eq!([at(1, 0), at(391, 0), at(0, 391)], [1268, 2534, 0]);
        assert_eq!([at(0, 127), at(127, 0)], [876, 1658]);
        assert_eq!(index.entries().iter().map(|&e| u64::from(e)).sum::<u64>(), 194_692_288);
    }

    #[test]
    fn a_clipped_window_takes_the_top_left_corner() {
        let (full, clipped) = (bias_index([8, 7, 7], 392), bias_index([8, 7, 7], 128));
        for i in 0..128 {
            assert_eq!(clipped.entries()[i * 128..][..128], full.entries()[i * 392..][..128]);
        }
    }

    #[test]
    fn the_shift_mask_has_the_published_counts() {
        let geometry = Geometry::default();
        let layout = geometry.layout([3, 6, 5], Window { size: [2, 4, 4], shift: [1, 2, 2] });
        assert_eq!((layout.windows, layout.tokens), (8, 32));
        let regions = layout.regions.as_ref().expect("a shifted block has regions");
        let counts: Vec<usize> = (0..8)
            .map(|window| {
                let labels = regions.window(window);
                labels.iter().map(|a| labels.iter().filter(|&b| a != b).count()).sum()
            })
            .collect();
        assert_eq!(counts, [0, 512, 512, 768, 512, 768, 768, 896]);
    }

    #[test]
    fn a_window_is_clipped_axis_by_axis() {
        let full = Window { size: [8, 7, 7], shift: [4, 3, 3] };
        assert_eq!(full.fit([16, 7, 14]), Window { size: [8, 7, 7], shift: [4, 0, 3] });
        assert_eq!(full.fit([8, 4, 4]), Window { size: [8, 4, 4], shift: [0, 0, 0] });
    }

    #[test]
    fn every_stage_row_goes_into_one_window_row() {
        let layout = Geometry::default().layout([3, 6, 5], Window { size: [2, 4, 4], shift: [1, 2, 2] });
        let mut seen: Vec<usize> =
            (0..layout.rows.outputs()).filter_map(|row| layout.rows.source(row)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..90).collect::<Vec<_>>());
        assert_eq!(layout.rows.outputs(), 8 * 32);
    }
}
