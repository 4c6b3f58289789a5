//! Where a worker's process keeps its store: a folder that no other process ever opens.
//!
//! The memory in it is a cache that lives as long as the process: what survives is in checkpoints. A process that was
//! killed leaves its folder behind; the next one of the same number removes it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::MemoryError;

/// File in the folder that its process holds locked.
pub(super) const LOCK: &str = "lock";

/// The folder of one process. Dropping it removes the folder: drop the store first.
#[derive(Debug)]
pub struct StoreFolder {
    path: PathBuf,
}

impl StoreFolder {
    /// Takes a folder of its own below `parent` for the worker of this number, and removes those that dead workers of the
    /// same number left behind.
    ///
    /// # Errors
    /// `parent` cannot be used.
    pub fn claim(parent: &Path, worker: u32) -> Result<Self, MemoryError> {
        let failed = |action, folder: &Path| {
            let folder = folder.to_owned();
            move |source| MemoryError::Io { action, folder, source }
        };
        fs::create_dir_all(parent).map_err(failed("create", parent))?;
        let prefix = format!("worker{worker}-");
        for entry in fs::read_dir(parent).map_err(failed("look for", parent))?.flatten() {
            let left_behind = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix));
            if left_behind && !is_alive(&entry.path()) {
                fs::remove_dir_all(entry.path()).map_err(failed("remove", &entry.path()))?;
            }
        }
        // The number of a process comes again, the time of its start with it does not.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let path = parent.join(format!("{prefix}{}-{now:x}", std::process::id()));
        fs::create_dir(&path).map_err(failed("create", &path))?;
        Ok(Self { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StoreFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(folder = %self.path.display(), %error, "the long memory is left behind");
        }
    }
}

/// Whether a process has the store in a folder open.
fn is_alive(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(LOCK)) else { return false };
    matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use longtake_shared::config::MemoryDtype;

    use super::*;
    use crate::model::memory::MemoryStore;

    #[test]
    fn what_the_dead_left_goes_and_what_lives_stays() {
        let run = tempfile::tempdir().unwrap();
        let living = StoreFolder::claim(run.path(), 1).unwrap();
        let (_store, _) = MemoryStore::open(living.path(), 2, MemoryDtype::F32).unwrap();
        let dead = run.path().join("worker1-12-34");
        drop(MemoryStore::open(&dead, 2, MemoryDtype::F32).unwrap());
        let of_another = run.path().join("worker11-12-34");
        fs::create_dir(&of_another).unwrap();
        let folder = StoreFolder::claim(run.path(), 1).unwrap();
        assert!(living.path().exists() && of_another.exists() && !dead.exists());
        assert_ne!(folder.path(), living.path());
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
