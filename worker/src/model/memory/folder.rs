//! The folder of a store: open in one process at a time; what cannot be used is set aside, and an empty store begins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use longtake_shared::config::MemoryDtype;
use longtake_shared::ids::LaneId;

use super::error::{MemoryError, Warning};
use super::ledger::{FoundRows, Ledger, LedgerError};
use super::place::LOCK;
use super::slab::Slab;

/// What a folder holds.
pub(super) struct Opened {
    /// Keeps other processes out while it lives.
    pub(super) lock: File,
    /// What is remembered.
    pub(super) ledger: Ledger,
    /// Its rows by lane, each with a slot of its own.
    pub(super) found: BTreeMap<LaneId, FoundRows>,
    /// Where the rows lie.
    pub(super) slab: Slab,
    /// The slots of `found`.
    pub(super) used: BTreeSet<u64>,
    /// What had to be put right.
    pub(super) warnings: Vec<Warning>,
}

/// Opens a folder, or makes it. One that does not open, or that holds rows of another shape, begins anew.
pub(super) fn open(folder: &Path, channels: usize, dtype: MemoryDtype) -> Result<Opened, MemoryError> {
    let failed = |action| move |source| MemoryError::Io { action, folder: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(failed("create"))?;
    let lock = File::create(folder.join(LOCK)).map_err(failed("lock"))?;
    let in_use = || MemoryError::InUse { folder: folder.to_owned() };
    patiently(|| match lock.try_lock() {
        Ok(()) => Some(Ok(())),
        Err(std::fs::TryLockError::WouldBlock) => None,
        Err(std::fs::TryLockError::Error(source)) => Some(Err(failed("lock")(source))),
    })
    .ok_or_else(in_use)??;
    let index = folder.join("index");
    let open_ledger = || {
        patiently(|| match Ledger::open(&index, channels, dtype) {
            Err(LedgerError::Locked) => None,
            opened => Some(opened),
        })
        .ok_or_else(in_use)
    };
    let mut warnings = Vec::new();
    let (ledger, mut found) = match open_ledger()? {
        Ok(opened) => opened,
        Err(error) => {
            warnings.push(set_aside(folder, &error).map_err(failed("set aside"))?);
            open_ledger()?.map_err(|error| MemoryError::Unusable {
                folder: folder.to_owned(),
                problem: error.to_string(),
            })?
        }
    };
    let slab = Slab::open(&folder.join("rows.slab"), channels * dtype.bytes()).map_err(failed("open"))?;
    let length = slab.slots().map_err(failed("open"))?;
    let used = claim_slots(&mut found, length, &mut warnings);
    Ok(Opened { lock, ledger, found, slab, used, warnings })
}

/// Tries for a second: a process that is just being started holds copies of its parent's locks until it runs its program.
fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    const ATTEMPTS: u32 = 50;
    for _ in 1..ATTEMPTS {
        if let Some(done) = attempt() {
            return Some(done);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    attempt()
}

/// Forgets durable rows that have no slot of their own; gives the slots of the others.
fn claim_slots(
    found: &mut BTreeMap<LaneId, FoundRows>,
    length: u64,
    warnings: &mut Vec<Warning>,
) -> BTreeSet<u64> {
    let mut used = BTreeSet::new();
    for (lane, videos) in found {
        let mut lost = 0;
        for rows in videos.values_mut() {
            let before = rows.len();
            rows.retain(|_, row| row.slot < length && used.insert(row.slot));
            lost += before - rows.len();
        }
        if lost > 0 {
            warnings.push(Warning::RowsLost { lane: *lane, rows: lost });
        }
    }
    used
}

/// Renames index and slab out of the way.
fn set_aside(folder: &Path, reason: &LedgerError) -> std::io::Result<Warning> {
    let name = |base: &str, number: u32| folder.join(format!("{base}.damaged-{number}"));
    let number = (1..u32::MAX)
        .find(|number| !name("index", *number).exists() && !name("rows.slab", *number).exists())
        .unwrap_or(u32::MAX);
    for base in ["index", "rows.slab"] {
        match std::fs::rename(folder.join(base), name(base, number)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(Warning::SetAside {
        folder: folder.to_owned(),
        aside: name("index", number),
        reason: reason.to_string(),
    })
}
