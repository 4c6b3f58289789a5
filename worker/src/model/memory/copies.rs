//! Copies of written rows, with their bits and who wrote them: what a neighbour keeps of a lane until it is in a checkpoint.
//!
//! Takes: rows `[rows, C]` of write-backs. Gives: bytes for a neighbour, and from them the newest copy of each row.

use std::collections::BTreeMap;

use longtake_shared::config::MemoryDtype;
use longtake_shared::ids::{LaneId, Step, VideoIndex};

use super::error::MemoryError;
use super::rows::{Aligned, to_bytes};
use super::store::MemoryStore;
use crate::tensors::{NamedTensor, TensorData, TensorFile};

/// The newest known copy of some rows, in the type they are stored in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowCopies {
    channels: usize,
    dtype: MemoryDtype,
    lanes: BTreeMap<LaneId, BTreeMap<VideoIndex, BTreeMap<u32, Copy>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Copy {
    written: Step,
    bytes: Box<[u8]>,
}

impl RowCopies {
    /// None yet.
    pub fn new(channels: usize, dtype: MemoryDtype) -> Self {
        Self { channels, dtype, lanes: BTreeMap::new() }
    }

    /// No copies, of rows of the same shape.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self::new(self.channels, self.dtype)
    }

    /// Lanes of which there are copies.
    pub fn lanes(&self) -> Vec<LaneId> {
        self.lanes.keys().copied().collect()
    }

    /// How many rows are copied.
    pub fn rows(&self) -> usize {
        self.lanes.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum()
    }

    /// Adds what a step wrote, as [`MemoryStore::write`] is given it.
    pub fn add(&mut self, lane: LaneId, video: VideoIndex, written: Step, first_row: i64, values: &[f32]) {
        let rows = values.len() / self.channels;
        let row_bytes = self.channels * self.dtype.bytes();
        let bytes = to_bytes(self.dtype, &values[..rows * self.channels]);
        for (position, bytes) in (first_row..).zip(bytes.chunks_exact(row_bytes)) {
            if let Ok(position) = u32::try_from(position) {
                self.put(lane, video, position, written, bytes);
            }
        }
    }

    /// Takes over what is newer than what is here.
    pub fn merge(&mut self, other: Self) {
        for (lane, videos) in other.lanes {
            for (video, rows) in videos {
                for (position, copy) in rows {
                    self.put(lane, video, position, copy.written, &copy.bytes);
                }
            }
        }
    }

    /// Forgets rows that a checkpoint of this step contains.
    pub fn forget_until(&mut self, step: Step) {
        for videos in self.lanes.values_mut() {
            for rows in videos.values_mut() {
                rows.retain(|_, copy| copy.written > step);
            }
            videos.retain(|_, rows| !rows.is_empty());
        }
        self.lanes.retain(|_, videos| !videos.is_empty());
    }

    /// The copies of one lane alone.
    #[must_use]
    pub fn of_lane(&self, lane: LaneId) -> Self {
        let lanes = self.lanes.get(&lane).map(|videos| (lane, videos.clone()));
        Self { channels: self.channels, dtype: self.dtype, lanes: lanes.into_iter().collect() }
    }

    fn put(&mut self, lane: LaneId, video: VideoIndex, position: u32, written: Step, bytes: &[u8]) {
        let rows = self.lanes.entry(lane).or_default().entry(video).or_default();
        if rows.get(&position).is_none_or(|known| known.written <= written) {
            rows.insert(position, Copy { written, bytes: bytes.into() });
        }
    }

    /// As bytes for another worker.
    ///
    /// # Errors
    /// More than a tensor file holds.
    pub fn encode(&self) -> Result<Vec<u8>, MemoryError> {
        let mut tensors = Vec::new();
        for (lane, videos) in &self.lanes {
            for (video, rows) in videos {
                let mut push = |what: &str, shape: Vec<usize>, data: TensorData| {
                    tensors.push(NamedTensor { name: format!("{}.{}.{what}", lane.0, video.0), shape, data });
                };
                let count = rows.len();
                let positions = rows.keys().map(|position| u64::from(*position)).collect();
                push("positions", vec![count], TensorData::U64(positions));
                let written = rows.values().map(|copy| copy.written.0).collect();
                push("written", vec![count], TensorData::U64(written));
                let mut all = Aligned::default();
                let row_bytes = self.channels * self.dtype.bytes();
                let all = all.bytes_mut(count * row_bytes);
                for (place, copy) in all.chunks_exact_mut(row_bytes).zip(rows.values()) {
                    place.copy_from_slice(&copy.bytes);
                }
                push("rows", vec![count, self.channels], stored(self.dtype, all));
            }
        }
        let file = TensorFile { tensors, metadata: BTreeMap::new() };
        file.encode().map_err(|error| MemoryError::Segment { problem: error.to_string() })
    }

    /// What [`Self::encode`] gave.
    ///
    /// # Errors
    /// Bytes that are no such copies, or copies of rows of another shape.
    pub fn decode(bytes: &[u8], channels: usize, dtype: MemoryDtype) -> Result<Self, MemoryError> {
        let wrong = |problem: &str| MemoryError::Segment { problem: format!("copies of rows {problem}") };
        let file = TensorFile::decode(bytes).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        let mut found: BTreeMap<(LaneId, VideoIndex), [Option<TensorData>; 3]> = BTreeMap::new();
        for tensor in file.tensors {
            let mut name = tensor.name.splitn(3, '.');
            let number = |part: Option<&str>| part.and_then(|part| part.parse().ok());
            let place = ["positions", "written", "rows"];
            let (lane, video) = (number(name.next()), number(name.next()));
            let kind = name.next().and_then(|what| place.iter().position(|known| *known == what));
            let (Some(lane), Some(video), Some(kind)) = (lane, video, kind) else {
                return Err(wrong("have a tensor that does not belong there"));
            };
            found.entry((LaneId(lane), VideoIndex(video))).or_default()[kind] = Some(tensor.data);
        }
        let mut copies = Self::new(channels, dtype);
        let row_bytes = channels * dtype.bytes();
        for ((lane, video), parts) in found {
            let [Some(TensorData::U64(positions)), Some(TensorData::U64(written)), Some(rows)] = parts else {
                return Err(wrong("lack a tensor"));
            };
            let (stored_as, bytes) = bytes_of(&rows).ok_or_else(|| wrong("are of no type of rows"))?;
            let count = positions.len();
            if stored_as != dtype || written.len() != count || bytes.len() != count * row_bytes {
                return Err(wrong("are of another shape"));
            }
            for ((position, written), bytes) in
                positions.into_iter().zip(written).zip(bytes.chunks_exact(row_bytes))
            {
                let position = u32::try_from(position).map_err(|_| wrong("have no such position"))?;
                copies.put(lane, video, position, Step(written), bytes);
            }
        }
        Ok(copies)
    }
}

impl MemoryStore {
    /// Copies of the rows of a lane that were written after a step.
    ///
    /// # Errors
    /// A lane that was not added, or the slab cannot be read. Damaged rows are left out.
    pub fn written_after(&self, lane: LaneId, step: Step) -> Result<RowCopies, MemoryError> {
        let mut copies = RowCopies::new(self.channels, self.dtype);
        for (video, positions) in self.rows_after(lane, step) {
            for position in positions {
                // One row at a time: between two checkpoints few are written.
                let row = self.read(lane, video, i64::from(position.0), 1)?;
                if row.damaged == 0 {
                    copies.add(lane, video, position.1, i64::from(position.0), &row.values);
                }
            }
        }
        Ok(copies)
    }

    /// Puts copies in the place of rows that are older or absent. Gives how many it put; rows outside their video are not.
    ///
    /// # Errors
    /// A video that was not added, a full disk, a ledger that can no longer be written.
    pub fn overlay(&mut self, copies: &RowCopies) -> Result<usize, MemoryError> {
        let mut put = 0;
        for (lane, videos) in &copies.lanes {
            for (video, rows) in videos {
                let known = std::sync::Arc::clone(self.rows_of(*lane, *video)?);
                let newer = |(position, copy): &(&u32, &Copy)| {
                    let known = known.get(**position as usize);
                    known.is_some_and(|row| !row.is_present() || row.written < copy.written)
                };
                let (mut places, mut bytes) = (Vec::new(), Vec::new());
                for (position, copy) in rows.iter().filter(newer) {
                    places.push((*position, copy.written));
                    bytes.extend_from_slice(&copy.bytes);
                }
                put += places.len();
                self.replace(*lane, *video, &places, &bytes.into(), &[])?;
            }
        }
        Ok(put)
    }
}

fn stored(dtype: MemoryDtype, bytes: &[u8]) -> TensorData {
    match dtype {
        MemoryDtype::F32 => TensorData::F32(bytemuck::cast_slice(bytes).to_vec()),
        MemoryDtype::F16 => TensorData::F16(bytemuck::cast_slice(bytes).to_vec()),
        MemoryDtype::Bf16 => TensorData::Bf16(bytemuck::cast_slice(bytes).to_vec()),
    }
}

fn bytes_of(data: &TensorData) -> Option<(MemoryDtype, &[u8])> {
    match data {
        TensorData::F32(values) => Some((MemoryDtype::F32, bytemuck::cast_slice(values))),
        TensorData::F16(values) => Some((MemoryDtype::F16, bytemuck::cast_slice(values))),
        TensorData::Bf16(values) => Some((MemoryDtype::Bf16, bytemuck::cast_slice(values))),
        TensorData::I64(_) | TensorData::U64(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use longtake_shared::config::MemoryDtype;
    use longtake_shared::ids::{LaneId, Step, VideoIndex};
    use tempfile::TempDir;

    use super::*;
    use crate::model::memory::RowState;

    const LANE: LaneId = LaneId(2);
    const VIDEO: VideoIndex = VideoIndex(7);

    fn store(dtype: MemoryDtype) -> (TempDir, MemoryStore) {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = MemoryStore::open(folder.path(), 2, dtype).unwrap();
        store.add_lane(LANE, &[(VIDEO, 5)]).unwrap();
        (folder, store)
    }

    #[test]
    fn copies_restore_what_was_written_bit_for_bit() {
        for dtype in [MemoryDtype::F32, MemoryDtype::F16, MemoryDtype::Bf16] {
            let (_folder, mut owner) = store(dtype);
            let mut copies = RowCopies::new(2, dtype);
            let writes: [(u64, i64, &[f32]); 3] = [
                (1, -1, &[9.0, 9.0, 0.1, 0.2, f32::NAN, -0.0]),
                (2, 1, &[1.5, 1.0e9]),
                (3, 4, &[0.3, 0.7, 5.0, 5.0]),
            ];
            for (step, first, values) in writes {
                owner.write(LANE, VIDEO, Step(step), first, values).unwrap();
                let mut sent = RowCopies::new(2, dtype);
                sent.add(LANE, VIDEO, Step(step), first, values);
                copies.merge(RowCopies::decode(&sent.encode().unwrap(), 2, dtype).unwrap());
            }
            let (_other, mut heir) = store(dtype);
            assert_eq!(heir.overlay(&copies.of_lane(LANE)).unwrap(), 3, "the row past the end is dropped");
            let bits = |store: &MemoryStore| {
                let window = store.read(LANE, VIDEO, 0, 5).unwrap();
                (window.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), window.state)
            };
            assert_eq!(bits(&heir), bits(&owner), "{dtype:?}");
            let direct = owner.written_after(LANE, Step(1)).unwrap();
            assert_eq!(direct.rows(), 2);
            assert_eq!(RowCopies::decode(&direct.encode().unwrap(), 2, dtype).unwrap(), direct);
        }
    }

    #[test]
    fn a_copy_never_replaces_a_newer_row_and_goes_with_its_checkpoint() {
        let (_folder, mut store) = store(MemoryDtype::F32);
        store.write(LANE, VIDEO, Step(5), 0, &[1.0, 1.0]).unwrap();
        let mut copies = RowCopies::new(2, MemoryDtype::F32);
        copies.add(LANE, VIDEO, Step(4), 0, &[2.0, 2.0, 2.0, 2.0]);
        copies.add(LANE, VIDEO, Step(6), 3, &[3.0, 3.0]);
        let mut older = RowCopies::new(2, MemoryDtype::F32);
        older.add(LANE, VIDEO, Step(2), 3, &[8.0, 8.0]);
        copies.merge(older);
        assert_eq!(store.overlay(&copies).unwrap(), 2);
        let remembered = |step| RowState::Remembered { written: Step(step) };
        let window = store.read(LANE, VIDEO, 0, 4).unwrap();
        assert_eq!(window.state, [remembered(5), remembered(4), RowState::Absent, remembered(6)]);
        assert_eq!(window.values, [1.0, 1.0, 2.0, 2.0, 0.0, 0.0, 3.0, 3.0]);
        copies.forget_until(Step(4));
        assert_eq!((copies.rows(), copies.lanes()), (1, vec![LANE]));
        copies.forget_until(Step(6));
        assert_eq!(copies.lanes(), []);
    }

    #[test]
    fn bytes_that_are_no_copies_are_refused() {
        let mut copies = RowCopies::new(2, MemoryDtype::F32);
        copies.add(LANE, VIDEO, Step(4), 0, &[2.0, 2.0]);
        let bytes = copies.encode().unwrap();
        assert!(RowCopies::decode(&bytes, 3, MemoryDtype::F32).is_err());
        assert!(RowCopies::decode(&bytes, 2, MemoryDtype::F16).is_err());
        assert!(RowCopies::decode(&bytes[..20], 2, MemoryDtype::F32).is_err());
        assert_eq!(
            RowCopies::decode(&copies.of_lane(LaneId(0)).encode().unwrap(), 2, MemoryDtype::F32)
                .unwrap()
                .rows(),
            0
        );
    }
}
