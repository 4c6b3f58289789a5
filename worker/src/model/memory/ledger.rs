//! The durable truth about what is remembered: a sled database with one tree a lane.
//!
//! Key: video, then temporal position, both big-endian. Value: slot, step that wrote it, checksum.

use std::collections::BTreeMap;
use std::path::Path;

use longtake_shared::config::MemoryDtype;
use longtake_shared::ids::{LaneId, Step, VideoIndex};

use super::rows::Row;

/// Version of keys, values and slab.
const FORMAT: u32 = 2;

/// Bytes that sled may use for its cache: an entry takes about 40.
const CACHE_BYTES: u64 = 16 << 20;

const SHAPE_KEY: &[u8] = b"shape";

/// The durable rows of a lane, by video and position.
pub(super) type FoundRows = BTreeMap<VideoIndex, BTreeMap<u32, Row>>;

/// The database.
#[derive(Debug)]
pub(super) struct Ledger {
    db: sled::Db,
}

/// Why a ledger that opens cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    /// The database failed.
    #[error(transparent)]
    Sled(#[from] sled::Error),
    /// Another process, or another handle of this one, has it open.
    #[error("it is open elsewhere")]
    Locked,
    /// It panicked, as sled does on some damage.
    #[error("sled could not read it")]
    Panicked,
    /// It holds rows of another layout.
    #[error("it holds rows of `{found}` and `{wanted}` are wanted")]
    Shape {
        /// Layout of its rows.
        found: String,
        /// Layout that is wanted.
        wanted: String,
    },
    /// A key or a value has a wrong length.
    #[error("tree `{tree}` holds an entry that is not a row")]
    Entry {
        /// The tree.
        tree: String,
    },
}

/// Changes of a lane that become durable together.
#[derive(Debug, Default)]
pub(super) struct LaneChanges {
    /// Whether all older rows of the lane are forgotten first.
    pub(super) cleared: bool,
    /// Rows by video and position; an absent row is removed.
    pub(super) rows: BTreeMap<(VideoIndex, u32), Row>,
}

fn tree_name(lane: LaneId) -> String {
    format!("lane-{}", lane.0)
}

fn key_of(video: VideoIndex, position: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&video.0.to_be_bytes());
    key[4..].copy_from_slice(&position.to_be_bytes());
    key
}

fn value_of(row: Row) -> [u8; 20] {
    let mut value = [0; 20];
    value[..8].copy_from_slice(&row.slot.to_le_bytes());
    value[8..16].copy_from_slice(&row.written.0.to_le_bytes());
    value[16..].copy_from_slice(&row.checksum.to_le_bytes());
    value
}

fn entry_of(key: &[u8], value: &[u8]) -> Option<(VideoIndex, u32, Row)> {
    let (video, position) = key.split_first_chunk::<4>()?;
    let (slot, rest) = value.split_first_chunk::<8>()?;
    let (written, checksum) = rest.split_first_chunk::<8>()?;
    let row = Row {
        slot: u64::from_le_bytes(*slot),
        written: Step(u64::from_le_bytes(*written)),
        checksum: u32::from_le_bytes(checksum.try_into().ok()?),
    };
    Some((VideoIndex(u32::from_be_bytes(*video)), u32::from_be_bytes(position.try_into().ok()?), row))
}

impl Ledger {
    /// Opens or creates the database and reads all rows of all lanes.
    pub(super) fn open(
        folder: &Path,
        channels: usize,
        dtype: MemoryDtype,
    ) -> Result<(Self, BTreeMap<LaneId, FoundRows>), LedgerError> {
        // sled 0.34 panics on some kinds of damage instead of returning an error.
        std::panic::catch_unwind(|| Self::open_or_panic(folder, channels, dtype))
            .unwrap_or(Err(LedgerError::Panicked))
    }

    fn open_or_panic(
        folder: &Path,
        channels: usize,
        dtype: MemoryDtype,
    ) -> Result<(Self, BTreeMap<LaneId, FoundRows>), LedgerError> {
        let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let db = config.open().map_err(|error| match error {
            // sled gives no kind of its own to this, only the sentence.
            sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => LedgerError::Locked,
            other => other.into(),
        })?;
        let wanted = format!("format {FORMAT}, {channels} channels, {dtype:?}");
        match db.get(SHAPE_KEY)? {
            Some(found) if found.as_ref() == wanted.as_bytes() => {}
            Some(found) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                return Err(LedgerError::Shape { found, wanted });
            }
            None => {
                db.insert(SHAPE_KEY, wanted.as_bytes())?;
                db.flush()?;
            }
        }
        let mut lanes = BTreeMap::new();
        for name in db.tree_names() {
            let name = String::from_utf8_lossy(&name).into_owned();
            let Some(lane) = name.strip_prefix("lane-").and_then(|number| number.parse().ok()) else {
                continue;
            };
            let mut found = FoundRows::new();
            for entry in &db.open_tree(&name)? {
                let (key, value) = entry?;
                let (video, position, row) =
                    entry_of(&key, &value).ok_or_else(|| LedgerError::Entry { tree: name.clone() })?;
                found.entry(video).or_default().insert(position, row);
            }
            lanes.insert(LaneId(lane), found);
        }
        Ok((Self { db }, lanes))
    }

    /// Makes changes durable; what they point at must be on the disk already.
    pub(super) fn commit(&self, changes: &BTreeMap<LaneId, LaneChanges>) -> Result<(), sled::Error> {
        for (lane, changes) in changes {
            let name = tree_name(*lane);
            if changes.cleared {
                self.db.drop_tree(&name)?;
            }
            if changes.rows.is_empty() {
                continue;
            }
            let mut batch = sled::Batch::default();
            for ((video, position), row) in &changes.rows {
                let key = key_of(*video, *position);
                if row.is_present() {
                    batch.insert(&key[..], &value_of(*row)[..]);
                } else {
                    batch.remove(&key[..]);
                }
            }
            self.db.open_tree(&name)?.apply_batch(batch)?;
        }
        self.db.flush().map(|_| ())
    }
}
