//! Rows as bytes of the configured type, and the checksum that ties bytes to what they are the row of.

use bytes::Bytes;
use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};
use longtake_shared::config::MemoryDtype;
use longtake_shared::ids::{Step, VideoIndex};
use twox_hash::XxHash3_64;

const _: () =
    assert!(cfg!(target_endian = "little"), "rows are stored as this machine holds them: little-endian");

/// Where a row lies, who wrote it, and the checksum of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Its slot; [`Row::ABSENT`] has none.
    pub(super) slot: u64,
    /// The step that wrote it.
    pub(super) written: Step,
    /// Checksum of video, position, step and bytes.
    pub(super) checksum: u32,
}

impl Row {
    /// No row.
    pub(super) const ABSENT: Self = Self { slot: u64::MAX, written: Step(0), checksum: 0 };

    /// Whether there is a row.
    pub(super) fn is_present(&self) -> bool {
        self.slot != u64::MAX
    }
}

/// XXH3 over what a row is and its bytes, the lower half of it: bytes of another row, or of the same row at another
/// step, do not pass.
pub(super) fn checksum(video: VideoIndex, position: u32, written: Step, bytes: &[u8]) -> u32 {
    let mut name = [0; 16];
    name[..4].copy_from_slice(&video.0.to_le_bytes());
    name[4..8].copy_from_slice(&position.to_le_bytes());
    name[8..].copy_from_slice(&written.0.to_le_bytes());
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&name), bytes) as u32
}

/// Bytes that may be looked at as values of any stored type: backed by words, so that they are aligned.
#[derive(Debug, Default)]
pub(super) struct Aligned {
    words: Vec<u32>,
    length: usize,
}

impl Aligned {
    /// So many bytes, whatever they hold.
    pub(super) fn bytes_mut(&mut self, length: usize) -> &mut [u8] {
        let words = length.div_ceil(4);
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
        self.length = length;
        &mut bytemuck::cast_slice_mut(&mut self.words)[..length]
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.length]
    }
}

/// Values as bytes of the stored type, rounded to nearest even.
pub(super) fn to_bytes(dtype: MemoryDtype, values: &[f32]) -> Bytes {
    if dtype == MemoryDtype::F32 {
        return Bytes::copy_from_slice(bytemuck::cast_slice(values));
    }
    let mut aligned = Aligned::default();
    let bytes = aligned.bytes_mut(values.len() * dtype.bytes());
    if dtype == MemoryDtype::F16 {
        bytemuck::cast_slice_mut::<u8, f16>(bytes).convert_from_f32_slice(values);
    } else {
        bytemuck::cast_slice_mut::<u8, bf16>(bytes).convert_from_f32_slice(values);
    }
    Bytes::from_owner(aligned)
}

/// Bytes of the stored type as values. `bytes` come from [`Aligned`].
pub(super) fn to_values(dtype: MemoryDtype, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        MemoryDtype::F32 => values.copy_from_slice(bytemuck::cast_slice(bytes)),
        MemoryDtype::F16 => bytemuck::cast_slice::<u8, f16>(bytes).convert_to_f32_slice(values),
        MemoryDtype::Bf16 => bytemuck::cast_slice::<u8, bf16>(bytes).convert_to_f32_slice(values),
    }
}
