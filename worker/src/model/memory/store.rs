//! The long memory of a worker's lanes: rows by video and temporal position, each with the step that wrote it.
//!
//! Takes: rows of sampled clips `[rows, C]` f32 after a step has committed. Gives: the rows of a window. Next: the merge
//! of fresh and remembered features. Reads and writes go to an index in memory and to the slab; the ledger follows.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use longtake_shared::config::MemoryDtype;
use longtake_shared::ids::{LaneId, Step, VideoIndex};

use super::error::{MemoryError, Warning};
use super::folder::{self, Opened};
use super::ledger::FoundRows;
use super::rows::{Aligned, Row, checksum, to_bytes, to_values};
use super::slab::Slab;
use super::slots::{Freed, Slots};
use super::snapshot::{Snapshot, decode_segment};
use super::writer::{Failure, Writer};

/// Changed rows that are made durable together: a few steps' worth, so that syncing costs little and few slots wait.
const COMMIT_ROWS: usize = 4096;

/// The rows of a lane, by video; shared with snapshots until they are written to.
pub(super) type LaneRows = BTreeMap<VideoIndex, Arc<Vec<Row>>>;

/// The long memory of a worker's lanes. One process has a folder open at a time.
#[derive(Debug)]
pub struct MemoryStore {
    pub(super) channels: usize,
    pub(super) dtype: MemoryDtype,
    pub(super) lanes: BTreeMap<LaneId, LaneRows>,
    /// Durable rows of lanes that have not been added yet.
    found: BTreeMap<LaneId, FoundRows>,
    slots: Slots,
    slab: Arc<Slab>,
    pub(super) writer: Writer,
    folder: PathBuf,
    /// Held while the store is open.
    _lock: File,
}

/// What is known of one row of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    /// Its values are those that this step wrote.
    Remembered {
        /// The step.
        written: Step,
    },
    /// The video has the row; the memory has no values for it.
    Absent,
    /// Before the video's start or past its end.
    Outside,
}

/// The rows of a window.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowRows {
    /// `[rows, C]`; zeros where nothing is remembered.
    pub values: Vec<f32>,
    /// One a row.
    pub state: Vec<RowState>,
    /// Rows whose checksum did not match; they count as absent.
    pub damaged: usize,
}

/// How old the remembered rows are.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ages {
    /// Rows with values.
    pub remembered: u64,
    /// Rows without.
    pub absent: u64,
    /// Steps since a row was written, averaged over the remembered ones; 0 without any.
    pub mean: f64,
    /// Steps since the oldest one was written.
    pub max: u64,
}

impl MemoryStore {
    /// Opens the store in a folder, or begins one. A store that does not open, or that holds rows of another shape, is
    /// renamed to `*.damaged-<n>` and an empty one takes its place.
    ///
    /// # Errors
    /// Another process has it open, or the folder cannot be used.
    pub fn open(
        folder: &Path,
        channels: usize,
        dtype: MemoryDtype,
    ) -> Result<(Self, Vec<Warning>), MemoryError> {
        Self::open_with(folder, channels, dtype, COMMIT_ROWS)
    }

    /// As [`Self::open`], with another number of changed rows that become durable together.
    pub(super) fn open_with(
        folder: &Path,
        channels: usize,
        dtype: MemoryDtype,
        commit_rows: usize,
    ) -> Result<(Self, Vec<Warning>), MemoryError> {
        let Opened { lock, ledger, found, slab, used, warnings } = folder::open(folder, channels, dtype)?;
        let slots = Slots::new(&used);
        let slab = Arc::new(slab);
        let writer =
            Writer::start(ledger, Arc::clone(&slab), slots.settled(), commit_rows).map_err(|source| {
                MemoryError::Io { action: "start the thread of", folder: folder.to_owned(), source }
            })?;
        let store = Self {
            channels,
            dtype,
            lanes: BTreeMap::new(),
            found,
            slots,
            slab,
            writer,
            folder: folder.to_owned(),
            _lock: lock,
        };
        Ok((store, warnings))
    }

    /// Adds a lane with its videos and how many rows each has. What the folder remembers of them is there at once.
    ///
    /// A worker that continues from a checkpoint drops the lane first: what the folder remembers may be newer.
    ///
    /// # Errors
    /// The ledger can no longer be written.
    pub fn add_lane(&mut self, lane: LaneId, videos: &[(VideoIndex, usize)]) -> Result<(), MemoryError> {
        let mut found = self.found.remove(&lane).unwrap_or_default();
        let mut rows: LaneRows = BTreeMap::new();
        for (video, count) in videos {
            let mut dense = vec![Row::ABSENT; *count];
            if let Some(durable) = found.get_mut(video) {
                durable.retain(|position, row| match dense.get_mut(*position as usize) {
                    Some(place) => {
                        *place = *row;
                        false
                    }
                    None => true,
                });
            }
            rows.insert(*video, Arc::new(dense));
        }
        self.lanes.insert(lane, rows);
        for (video, stale) in found.into_iter().filter(|(_, stale)| !stale.is_empty()) {
            let slots = stale.values().map(|row| row.slot).collect();
            let gone = stale.into_keys().map(|position| (position, Row::ABSENT)).collect();
            let freed = self.freed(slots);
            self.writer.change(lane, video, gone, freed).map_err(|failure| self.write_error(failure))?;
        }
        Ok(())
    }

    /// Forgets a lane, on the disk too.
    ///
    /// # Errors
    /// The ledger can no longer be written.
    pub fn drop_lane(&mut self, lane: LaneId) -> Result<(), MemoryError> {
        let added = self.lanes.remove(&lane).unwrap_or_default();
        let found = self.found.remove(&lane).unwrap_or_default();
        let mut slots: Vec<u64> = found.values().flat_map(BTreeMap::values).map(|row| row.slot).collect();
        let rows = added.values().flat_map(|rows| rows.iter());
        slots.extend(rows.filter(|row| row.is_present()).map(|row| row.slot));
        let freed = self.freed(slots);
        self.writer.forget(lane, freed).map_err(|failure| self.write_error(failure))
    }

    /// Lanes that have been added, in order.
    pub fn lanes(&self) -> Vec<LaneId> {
        self.lanes.keys().copied().collect()
    }

    /// Reads rows of a video from `first_row` on (negative before its start); a write is seen at once.
    ///
    /// # Errors
    /// A video that was not added, or the slab cannot be read.
    pub fn read(
        &self,
        lane: LaneId,
        video: VideoIndex,
        first_row: i64,
        rows: usize,
    ) -> Result<WindowRows, MemoryError> {
        let known = self.rows_of(lane, video)?;
        let mut window = WindowRows {
            values: vec![0.0; rows * self.channels],
            state: vec![RowState::Outside; rows],
            damaged: 0,
        };
        let inside = clip(first_row, rows, known.len());
        if inside.is_empty() {
            return Ok(window);
        }
        let mut bytes = Aligned::default();
        let offset = (inside.start as i64 - first_row) as usize;
        window.state[offset..offset + inside.len()].fill(RowState::Absent);
        for run in slot_runs(known, inside) {
            let place = (run.start as i64 - first_row) as usize;
            let values = &mut window.values[place * self.channels..][..run.len() * self.channels];
            let row_bytes = self.slab.row_bytes();
            // Rows of 32 bits need no other place than the window itself.
            let bytes: &[u8] = if self.dtype == MemoryDtype::F32 {
                if !self.read_slots(known[run.start].slot, bytemuck::cast_slice_mut(values))? {
                    values.fill(0.0);
                    window.damaged += run.len();
                    continue;
                }
                bytemuck::cast_slice(values)
            } else {
                let bytes = bytes.bytes_mut(run.len() * row_bytes);
                if !self.read_slots(known[run.start].slot, bytes)? {
                    window.damaged += run.len();
                    continue;
                }
                to_values(self.dtype, bytes, values);
                bytes
            };
            let mut broken = Vec::new();
            for (index, (position, row)) in run.clone().zip(&known[run.clone()]).enumerate() {
                let row_of = &bytes[index * row_bytes..][..row_bytes];
                if checksum(video, position as u32, row.written, row_of) == row.checksum {
                    window.state[place + index] = RowState::Remembered { written: row.written };
                } else {
                    broken.push(index);
                }
            }
            window.damaged += broken.len();
            for index in broken {
                values[index * self.channels..][..self.channels].fill(0.0);
            }
        }
        Ok(window)
    }

    /// Replaces rows of a video from `first_row` on by `values` `[rows, C]`; rows outside the video are dropped.
    ///
    /// # Errors
    /// A video that was not added, values that are not whole rows, a full disk, a ledger that can no longer be written.
    /// What was remembered is then unchanged.
    pub fn write(
        &mut self,
        lane: LaneId,
        video: VideoIndex,
        step: Step,
        first_row: i64,
        values: &[f32],
    ) -> Result<(), MemoryError> {
        if !values.len().is_multiple_of(self.channels) {
            return Err(MemoryError::NotRows { values: values.len(), channels: self.channels });
        }
        let inside = clip(first_row, values.len() / self.channels, self.rows_of(lane, video)?.len());
        if inside.is_empty() {
            return Ok(());
        }
        let skipped = (inside.start as i64 - first_row) as usize;
        let values = &values[skipped * self.channels..][..inside.len() * self.channels];
        let rows: Vec<(u32, Step)> = inside.map(|position| (position as u32, step)).collect();
        self.replace(lane, video, &rows, &to_bytes(self.dtype, values), &[])
    }

    /// A lane's rows as they are now, whatever is written later; cheap.
    ///
    /// # Errors
    /// A lane that was not added.
    pub fn snapshot(&self, lanes: &[LaneId]) -> Result<Snapshot, MemoryError> {
        let pin = self.slots.pins().pin();
        let mut rows = BTreeMap::new();
        for lane in lanes {
            let known = self.lanes.get(lane).ok_or_else(|| MemoryError::Segment {
                problem: format!("{lane} is not one of this worker's lanes"),
            })?;
            rows.insert(*lane, known.clone());
        }
        Ok(Snapshot::new(Arc::clone(&self.slab), self.channels, self.dtype, rows, pin, self.folder.clone()))
    }

    /// Puts back what [`Snapshot::segments`] gave: all rows of its videos, absences too. Gives the lane and its videos.
    ///
    /// # Errors
    /// Bytes that are no segment, a lane or video that was not added, another number of rows or channels, another type.
    pub fn restore(&mut self, segment: &[u8]) -> Result<(LaneId, Vec<VideoIndex>), MemoryError> {
        let segment = decode_segment(segment, self.channels, self.dtype)?;
        for video in &segment.videos {
            let known = self.rows_of(segment.lane, video.video)?.len();
            // A video without rows could not be opened, here or where the segment comes from.
            let opened = known > 0 && !video.written.is_empty();
            if opened && known != video.written.len() {
                let problem = format!("{} has {known} rows and not {}", video.video, video.written.len());
                return Err(MemoryError::Segment { problem });
            }
        }
        let row_bytes = self.slab.row_bytes();
        for video in &segment.videos {
            // What is here already stays where it is: after a failure most rows are those of the checkpoint.
            let known = Arc::clone(self.rows_of(segment.lane, video.video)?);
            if known.is_empty() {
                continue;
            }
            let mut present = Vec::new();
            let mut absent = Vec::new();
            if video.written.is_empty() {
                let held = (0u32..).zip(known.iter()).filter(|(_, row)| row.is_present());
                absent.extend(held.map(|(position, _)| position));
            }
            let mut bytes = Vec::with_capacity(video.bytes.len());
            for (position, (written, row)) in
                (0u32..).zip(video.written.iter().zip(video.bytes.chunks_exact(row_bytes)))
            {
                let here = known[position as usize];
                if let Some(written) = written {
                    let same = (here.written, here.checksum)
                        == (*written, checksum(video.video, position, *written, row));
                    if !here.is_present() || !same {
                        present.push((position, *written));
                        bytes.extend_from_slice(row);
                    }
                } else if here.is_present() {
                    absent.push(position);
                }
            }
            if present.is_empty() && absent.is_empty() {
                continue;
            }
            self.replace(segment.lane, video.video, &present, &bytes.into(), &absent)?;
        }
        Ok((segment.lane, segment.videos.iter().map(|video| video.video).collect()))
    }

    /// How old the remembered rows of all lanes are at a step.
    pub fn ages(&self, now: Step) -> Ages {
        let mut ages = Ages::default();
        let mut sum = 0;
        for row in self.lanes.values().flat_map(BTreeMap::values).flat_map(|rows| rows.iter()) {
            if row.is_present() {
                let age = now.0.saturating_sub(row.written.0);
                ages.remembered += 1;
                sum += age;
                ages.max = ages.max.max(age);
            } else {
                ages.absent += 1;
            }
        }
        if ages.remembered > 0 {
            ages.mean = sum as f64 / ages.remembered as f64;
        }
        ages
    }

    /// Returns when all that was written is durable.
    ///
    /// # Errors
    /// The ledger can no longer be written.
    pub fn flush(&self) -> Result<(), MemoryError> {
        self.writer.flush().map_err(|failure| self.write_error(failure))
    }

    /// Slots the slab has: rows, free slots and slots that wait for a commit or a snapshot.
    pub fn slots(&self) -> u64 {
        self.slots.end()
    }

    /// Writes bytes of rows to free slots and points the rows at them; other rows become absent.
    pub(super) fn replace(
        &mut self,
        lane: LaneId,
        video: VideoIndex,
        rows: &[(u32, Step)],
        bytes: &Bytes,
        absent: &[u32],
    ) -> Result<(), MemoryError> {
        if let Some(failure) = self.writer.failure() {
            return Err(self.write_error(failure));
        }
        let row_bytes = self.slab.row_bytes();
        let runs = self.slots.allocate(rows.len() as u64);
        if let Err(error) = self.slab.put(&runs, bytes.clone()) {
            self.slots.give_back(runs);
            return Err(self.write_error(Failure::from(error)));
        }
        let slots = runs.into_iter().flatten();
        let mut changes: Vec<(u32, Row)> = rows
            .iter()
            .zip(slots)
            .zip(bytes.chunks_exact(row_bytes))
            .map(|(((position, written), slot), bytes)| {
                let checksum = checksum(video, *position, *written, bytes);
                (*position, Row { slot, written: *written, checksum })
            })
            .collect();
        changes.extend(absent.iter().map(|position| (*position, Row::ABSENT)));
        let known = self.lanes.get_mut(&lane).and_then(|lane| lane.get_mut(&video));
        let known = Arc::make_mut(known.ok_or(MemoryError::Unknown { lane, video })?);
        let mut replaced = Vec::with_capacity(changes.len());
        for (position, row) in &changes {
            let old = std::mem::replace(&mut known[*position as usize], *row);
            if old.is_present() {
                replaced.push(old.slot);
            }
        }
        let freed = self.freed(replaced);
        self.writer.change(lane, video, changes, freed).map_err(|failure| self.write_error(failure))
    }

    pub(super) fn rows_of(&self, lane: LaneId, video: VideoIndex) -> Result<&Arc<Vec<Row>>, MemoryError> {
        self.lanes.get(&lane).and_then(|lane| lane.get(&video)).ok_or(MemoryError::Unknown { lane, video })
    }

    /// Reads slots; false where the slab ends before they do.
    fn read_slots(&self, first: u64, bytes: &mut [u8]) -> Result<bool, MemoryError> {
        match self.slab.read(first, bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(source) => Err(MemoryError::Io { action: "read", folder: self.folder.clone(), source }),
        }
    }

    fn freed(&self, slots: Vec<u64>) -> Freed {
        Freed { before: self.slots.pins().taken(), slots }
    }

    pub(super) fn write_error(&self, failure: Failure) -> MemoryError {
        let folder = self.folder.clone();
        match failure {
            Failure::Full => MemoryError::Full { folder },
            Failure::Other(problem) => MemoryError::Unwritable { folder, problem },
        }
    }
}

/// The part of `rows` rows from `first` on that lies in a video of `length` rows.
fn clip(first: i64, rows: usize, length: usize) -> Range<usize> {
    let start = first.clamp(0, length as i64) as usize;
    let end = first.saturating_add(rows as i64).clamp(start as i64, length as i64) as usize;
    start..end
}

/// Runs of positions whose rows lie in neighbouring slots, so that one call reads them all.
pub(super) fn slot_runs(rows: &[Row], inside: Range<usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for position in inside {
        if !rows[position].is_present() {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == position && rows[position - 1].slot + 1 == rows[position].slot => {
                run.end += 1;
            }
            _ => runs.push(position..position + 1),
        }
    }
    runs
}
