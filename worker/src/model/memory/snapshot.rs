//! Rows of some lanes as they were at one moment, and their way into and out of a checkpoint's parts.
//!
//! A segment is a safetensors file. Per video `v`: `v.rows` `[n, C]` with the stored bits (zeros where absent), and
//! `v.written` `[n]` with the step that wrote each row, -1 where it is absent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use longtake_shared::config::MemoryDtype;
use longtake_shared::ids::{LaneId, Step, VideoIndex};

use super::error::MemoryError;
use super::rows::{Aligned, checksum};
use super::slab::Slab;
use super::slots::Pin;
use super::store::{LaneRows, slot_runs};
use crate::tensors::{NamedTensor, TensorData, TensorFile};

/// Rows of some lanes as they were at one moment. While it lives, none of their slots is written.
#[derive(Debug)]
pub struct Snapshot {
    slab: Arc<Slab>,
    channels: usize,
    dtype: MemoryDtype,
    lanes: BTreeMap<LaneId, LaneRows>,
    folder: PathBuf,
    _pin: Pin,
}

/// Some videos of a lane as bytes; the same rows always give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The lane.
    pub lane: LaneId,
    /// Its videos in these bytes, sorted.
    pub videos: Vec<VideoIndex>,
    /// The safetensors file.
    pub bytes: Bytes,
}

/// A segment as it was read back.
pub(super) struct DecodedSegment {
    pub(super) lane: LaneId,
    pub(super) videos: Vec<DecodedVideo>,
}

/// One video of a segment.
pub(super) struct DecodedVideo {
    pub(super) video: VideoIndex,
    /// Who wrote each row; nothing where it is absent.
    pub(super) written: Vec<Option<Step>>,
    /// All rows, absent ones too.
    pub(super) bytes: Vec<u8>,
}

impl Snapshot {
    pub(super) fn new(
        slab: Arc<Slab>,
        channels: usize,
        dtype: MemoryDtype,
        lanes: BTreeMap<LaneId, LaneRows>,
        pin: Pin,
        folder: PathBuf,
    ) -> Self {
        Self { slab, channels, dtype, lanes, folder, _pin: pin }
    }

    /// All rows, by groups of `group` videos of a lane: a group none of whose rows changed gives the bytes it gave before.
    ///
    /// # Errors
    /// An item is an error where the slab cannot be read. Damaged rows are absent.
    pub fn segments(&self, group: usize) -> impl Iterator<Item = Result<Segment, MemoryError>> + '_ {
        self.lanes.iter().flat_map(move |(lane, rows)| {
            let videos: Vec<VideoIndex> = rows.keys().copied().collect();
            let groups: Vec<Vec<VideoIndex>> = videos.chunks(group.max(1)).map(<[_]>::to_vec).collect();
            groups.into_iter().map(move |videos| self.segment(*lane, rows, videos))
        })
    }

    /// The rows of the group of this number of a lane, as [`Self::segments`] gives them; nothing past the last group.
    ///
    /// # Errors
    /// The slab cannot be read.
    pub fn group(&self, lane: LaneId, group: usize, number: usize) -> Result<Option<Segment>, MemoryError> {
        let Some(rows) = self.lanes.get(&lane) else { return Ok(None) };
        let videos: Vec<VideoIndex> = rows.keys().copied().skip(group * number).take(group).collect();
        if videos.is_empty() { Ok(None) } else { self.segment(lane, rows, videos).map(Some) }
    }

    fn segment(
        &self,
        lane: LaneId,
        rows: &LaneRows,
        videos: Vec<VideoIndex>,
    ) -> Result<Segment, MemoryError> {
        let mut tensors = Vec::with_capacity(2 * videos.len());
        for video in &videos {
            let known = &rows[video];
            let row_bytes = self.slab.row_bytes();
            let mut all = Aligned::default();
            let mut written = vec![-1; known.len()];
            let all = all.bytes_mut(known.len() * row_bytes);
            for run in slot_runs(known, 0..known.len()) {
                let bytes = &mut all[run.start * row_bytes..run.end * row_bytes];
                match self.slab.read(known[run.start].slot, bytes) {
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => bytes.fill(0),
                    Err(source) => {
                        return Err(MemoryError::Io { action: "read", folder: self.folder.clone(), source });
                    }
                    Ok(()) => {}
                }
                for (position, bytes) in run.zip(bytes.chunks_exact_mut(row_bytes)) {
                    let row = known[position];
                    if checksum(*video, position as u32, row.written, bytes) == row.checksum {
                        written[position] = row.written.0 as i64;
                    } else {
                        bytes.fill(0);
                    }
                }
            }
            let data = match self.dtype {
                MemoryDtype::F32 => TensorData::F32(bytemuck::cast_slice(all).to_vec()),
                MemoryDtype::F16 => TensorData::F16(bytemuck::cast_slice(all).to_vec()),
                MemoryDtype::Bf16 => TensorData::Bf16(bytemuck::cast_slice(all).to_vec()),
            };
            let shape = vec![known.len(), self.channels];
            tensors.push(NamedTensor { name: format!("{}.rows", video.0), shape, data });
            let shape = vec![known.len()];
            let data = TensorData::I64(written);
            tensors.push(NamedTensor { name: format!("{}.written", video.0), shape, data });
        }
        let metadata = BTreeMap::from([("lane".to_owned(), lane.0.to_string())]);
        let file = TensorFile { tensors, metadata };
        let bytes = file.encode().map_err(|error| MemoryError::Segment { problem: error.to_string() })?;
        Ok(Segment { lane, videos, bytes: Bytes::from(bytes) })
    }
}

/// Reads a segment back.
pub(super) fn decode_segment(
    bytes: &[u8],
    channels: usize,
    dtype: MemoryDtype,
) -> Result<DecodedSegment, MemoryError> {
    let wrong = |problem: String| MemoryError::Segment { problem };
    let file = TensorFile::decode(bytes).map_err(|error| wrong(error.to_string()))?;
    let lane = file.metadata.get("lane").and_then(|lane| lane.parse().ok()).map(LaneId);
    let lane = lane.ok_or_else(|| wrong("it does not say which lane it is of".into()))?;
    let mut rows = BTreeMap::new();
    let mut written = BTreeMap::new();
    for tensor in file.tensors {
        let unknown = || wrong(format!("tensor `{}` is not one of a segment", tensor.name));
        let (video, what) = tensor.name.split_once('.').ok_or_else(unknown)?;
        let video = VideoIndex(video.parse().map_err(|_| unknown())?);
        match (what, &tensor.data) {
            ("written", TensorData::I64(steps)) => {
                let steps = steps.iter().map(|step| u64::try_from(*step).ok().map(Step)).collect();
                written.insert(video, steps);
            }
            ("rows", data) => {
                let stored = match data {
                    TensorData::F32(values) => (MemoryDtype::F32, bytemuck::cast_slice(values)),
                    TensorData::F16(values) => (MemoryDtype::F16, bytemuck::cast_slice(values)),
                    TensorData::Bf16(values) => (MemoryDtype::Bf16, bytemuck::cast_slice(values)),
                    TensorData::I64(_) | TensorData::U64(_) => return Err(unknown()),
                };
                let (found, bytes): (MemoryDtype, &[u8]) = stored;
                if found != dtype || tensor.shape.get(1) != Some(&channels) {
                    let has = format!("`{}` is {found:?} of shape {:?}", tensor.name, tensor.shape);
                    return Err(wrong(format!("{has}, and {dtype:?} of {channels} channels is wanted")));
                }
                rows.insert(video, bytes.to_vec());
            }
            _ => return Err(unknown()),
        }
    }
    let mut videos = Vec::with_capacity(rows.len());
    for (video, bytes) in rows {
        let written: Vec<Option<Step>> = written.remove(&video).unwrap_or_default();
        if written.len() * channels * dtype.bytes() != bytes.len() {
            return Err(wrong(format!("{video} has another number of rows than of steps")));
        }
        videos.push(DecodedVideo { video, written, bytes });
    }
    Ok(DecodedSegment { lane, videos })
}
