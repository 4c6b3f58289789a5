//! The Unix socket of an agent, in a folder that only its owner can enter.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;

/// Longest path of a Unix socket on Linux, its end marker included (unix(7)).
const LONGEST_PATH: usize = 108;

/// How the names of these folders begin; 32 hexadecimal digits follow.
const NAME: &str = "longtake-";

/// In the folder: locked while its agent lives. The kernel unlocks it however that dies.
const LOCK: &str = "agent.lock";

/// A folder that goes when it is dropped. It lies outside the run's folder, whose path may be too long for a socket.
#[derive(Debug)]
pub(super) struct SocketFolder {
    path: PathBuf,
    _lock: File,
}

impl SocketFolder {
    /// Makes one.
    ///
    /// # Errors
    /// There is no place for it.
    pub(super) fn make() -> io::Result<Self> {
        let name = format!("{NAME}{}", uuid::Uuid::new_v4().simple());
        let wished = std::env::temp_dir();
        let place = if socket_in(&wished.join(&name)).as_os_str().len() < LONGEST_PATH {
            wished
        } else {
            PathBuf::from("/tmp")
        };
        // Under another name until it is locked: nobody takes it for a leftover.
        let (draft, path) = (place.join(format!("{name}.new")), place.join(&name));
        fs::DirBuilder::new().mode(0o700).create(&draft)?;
        let lock = File::create(draft.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(&draft, &path)?;
        Ok(Self { path, _lock: lock })
    }

    /// The socket's path.
    pub(super) fn socket(&self) -> PathBuf {
        socket_in(&self.path)
    }

    /// Listens there.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(super) fn listen(&self) -> io::Result<UnixListener> {
        UnixListener::bind(self.socket())
    }
}

/// Removes the folders of agents that were killed.
pub(super) fn remove_leftovers() {
    for place in [std::env::temp_dir(), PathBuf::from("/tmp")] {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_name) && is_left_over(&entry.path()) {
                // What another user left is that user's to clean.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    let digits = name.strip_prefix(NAME).unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// A folder without the lock file is not one of ours, or another agent is removing it right now.
fn is_left_over(folder: &Path) -> bool {
    File::open(folder.join(LOCK))
        .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        // What cannot be removed from the temporary folder is the system's to clean.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_folder_is_private_and_goes_with_its_owner() {
        let folder = SocketFolder::make().unwrap();
        let path = folder.path.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(folder.socket().as_os_str().len() < LONGEST_PATH);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_agent_has_left_is_removed_and_nothing_else() {
        let alive = SocketFolder::make().unwrap();
        let dead = SocketFolder::make().unwrap();
        let left = dead.path.clone();
        let SocketFolder { _lock: lock, .. } = &dead;
        // The kernel does this when a process is killed.
        flock(lock, FlockOperation::Unlock).unwrap();
        std::mem::forget(dead);
        let other = alive.path.with_file_name(format!("{NAME}{}", "0".repeat(32)));
        fs::create_dir_all(&other).unwrap();
        remove_leftovers();
        assert!(!left.exists());
        assert!(alive.path.exists() && other.exists());
        fs::remove_dir(other).unwrap();
    }
}
