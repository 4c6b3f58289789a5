//! The Unix socket of an agent, in a folder that only its owner can enter.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Longest path of a Unix socket on Linux, its end marker included (unix(7)).
const LONGEST_PATH: usize = 108;

/// A folder that goes when it is dropped. It lies outside the run's folder, whose path may be too long for a socket.
#[derive(Debug)]
pub(super) struct SocketFolder(PathBuf);

impl SocketFolder {
    /// Makes one.
    ///
    /// # Errors
    /// There is no place for it.
    pub(super) fn make() -> io::Result<Self> {
        let name = format!("longtake-{}", uuid::Uuid::new_v4().simple());
        let wished = std::env::temp_dir().join(&name);
        let folder = if socket_in(&wished).as_os_str().len() < LONGEST_PATH {
            wished
        } else {
            Path::new("/tmp").join(&name)
        };
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }

    /// The socket's path.
    pub(super) fn socket(&self) -> PathBuf {
        socket_in(&self.0)
    }

    /// Listens there.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(super) fn listen(&self) -> io::Result<UnixListener> {
        UnixListener::bind(self.socket())
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        // What cannot be removed from the temporary folder is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_folder_is_private_and_goes_with_its_owner() {
        let folder = SocketFolder::make().unwrap();
        let path = folder.0.clone();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(folder.socket().as_os_str().len() < LONGEST_PATH);
        drop(folder);
        assert!(!path.exists());
    }
}
