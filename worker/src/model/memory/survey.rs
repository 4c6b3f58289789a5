//! What a store holds, without reading it.

use std::collections::BTreeMap;

use longtake_shared::ids::{LaneId, Step, VideoIndex};

use super::error::MemoryError;
use super::rows::Row;
use super::store::MemoryStore;

impl MemoryStore {
    /// Whether a video has rows without values.
    ///
    /// # Errors
    /// A video that was not added.
    pub fn lacks_rows(&self, lane: LaneId, video: VideoIndex) -> Result<bool, MemoryError> {
        Ok(!self.rows_of(lane, video)?.iter().all(Row::is_present))
    }

    /// Rows of a lane with values, and without.
    pub fn count(&self, lane: LaneId) -> (usize, usize) {
        let rows = self.lanes.get(&lane).into_iter().flat_map(BTreeMap::values).flat_map(|rows| rows.iter());
        rows.fold(
            (0, 0),
            |(present, absent), row| {
                if row.is_present() { (present + 1, absent) } else { (present, absent + 1) }
            },
        )
    }

    /// Why nothing can be written any more, if so: the store is to be given up then.
    pub fn failure(&self) -> Option<MemoryError> {
        self.writer.failure().map(|failure| self.write_error(failure))
    }

    /// From now on nothing can be written, as after the first error of the disk.
    #[cfg(test)]
    pub(crate) fn fail(&self, problem: &str) {
        self.writer.fail(problem);
    }

    /// Position and writer of the rows of a lane that were written after a step, by video.
    pub(super) fn rows_after(&self, lane: LaneId, step: Step) -> Vec<(VideoIndex, Vec<(u32, Step)>)> {
        let of_video = |rows: &Vec<Row>| {
            let newer = (0u32..).zip(rows.iter()).filter(|(_, row)| row.is_present() && row.written > step);
            newer.map(|(position, row)| (position, row.written)).collect()
        };
        let videos = self.lanes.get(&lane).into_iter().flatten();
        videos.map(|(video, rows)| (*video, of_video(rows))).collect()
    }
}
