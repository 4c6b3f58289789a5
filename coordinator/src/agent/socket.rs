//! The Unix socket of an agent, in a private folder.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;

/// Longest path of a Unix socket on Linux, including the final zero byte (unix(7)).
const LONGEST_PATH: usize = 108;

/// Prefix of the folder names; 32 hexadecimal digits follow.
const NAME: &str = "longtake-";

/// File in the folder that a running agent locks. The kernel releases the lock when the agent ends, in whatever way.
const LOCK: &str = "agent.lock";

/// A folder that is removed when it is dropped. It lies outside the run's folder, whose path may be too long for a socket.
#[derive(Debug)]
pub(super) struct SocketFolder {
    path: PathBuf,
    _lock: File,
}

impl SocketFolder {
    /// Creates a folder.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub(super) fn make() -> io::Result<Self> {
        let name = format!("{NAME}{}", uuid::Uuid::new_v4().simple());
        let wished = std::env::temp_dir();
        let place = if socket_in(&wished.join(&name)).as_os_str().len() < LONGEST_PATH {
            wished
        } else {
            PathBuf::from("/tmp")
        };
        // It has another name until it is locked, so that no agent removes it as a leftover.
        let (draft, path) = (place.join(format!("{name}.new")), place.join(&name));
        fs::DirBuilder::new().mode(0o700).create(&draft)?;
        let lock = File::create(draft.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(&draft, &path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Path of the socket.
    pub(super) fn socket(&self) -> PathBuf {
        socket_in(&self.path)
    }

    /// Listens on the socket.
    ///
    /// # Errors
    /// The socket cannot be created.
    pub(super) fn listen(&self) -> io::Result<UnixListener> {
        UnixListener::bind(self.socket())
    }
}

/// Removes the folders of killed agents.
pub(super) fn remove_leftovers() {
    for place in [std::env::temp_dir(), PathBuf::from("/tmp")] {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_name) && is_left_over(&entry.path()) {
                // Folders of other users cannot be removed.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    let digits = name.strip_prefix(NAME).unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// A folder without the lock file belongs to another program, or is being removed by another agent.
fn is_left_over(folder: &Path) -> bool {
    File::open(folder.join(LOCK))
        .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        // The system cleans up the temporary folder.
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
