//! The address of a run's coordinator and the lock that keeps it unique: two files in the run's folder.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use longtake_shared::hint::Hint;
use longtake_shared::ids::{Incarnation, RunId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// Name of the file with the coordinator's address.
pub const ADDRESS_FILE: &str = "coordinator.json";

/// Name of the file that a running coordinator locks.
pub const LOCK_FILE: &str = "coordinator.lock";

/// The address of a run's coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorAddress {
    /// The run.
    pub run: RunId,
    /// The coordinator start.
    pub incarnation: Incarnation,
    /// Address on which it listens.
    pub address: SocketAddr,
    /// Its process id.
    pub pid: u32,
    /// Token that clients must present; only its owner can read the file.
    pub token: String,
}

/// The data that an agent or operator needs to connect to a run's coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The run.
    pub run: RunId,
    /// Host and port.
    pub address: String,
    /// Token to present.
    pub token: String,
}

impl From<CoordinatorAddress> for Contact {
    fn from(found: CoordinatorAddress) -> Self {
        Self { run: found.run, address: found.address.to_string(), token: found.token }
    }
}

/// How to find a coordinator, which may restart at another address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// A fixed address.
    Fixed(Contact),
    /// The address in the run's folder.
    Folder(PathBuf),
}

impl Whereabouts {
    /// The current address.
    ///
    /// # Errors
    /// The folder contains none.
    pub fn look_up(&self) -> Result<Contact, AddressError> {
        match self {
            Self::Fixed(contact) => Ok(contact.clone()),
            Self::Folder(folder) => find(folder).map(Contact::from),
        }
    }
}

/// A failure with the two files.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Another coordinator is running.
    #[error("the run folder `{folder}` is in use by process {pid}")]
    Taken {
        /// The run's folder.
        folder: PathBuf,
        /// Id of the process that holds it.
        pid: String,
    },
    /// No coordinator has published its address there.
    #[error("no coordinator of the run in `{folder}` is running")]
    NotRunning {
        /// The run's folder.
        folder: PathBuf,
    },
    /// The file cannot be parsed.
    #[error("`{path}` does not contain the address of a coordinator: {reason}")]
    Garbled {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {verb} `{path}`")]
    Io {
        /// The operation that failed.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Hint for AddressError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { .. } => {
                Some("stop that run with `longtake stop`, or give this one another `run.name`".to_owned())
            }
            Self::NotRunning { .. } => Some("start it with `longtake train --resume`".to_owned()),
            Self::Garbled { .. } | Self::Io { .. } => None,
        }
    }
}

/// The lock of a run's folder. The kernel releases it when the process ends, in whatever way.
#[derive(Debug)]
pub struct FolderLock {
    folder: PathBuf,
    file: File,
}

impl FolderLock {
    /// Locks a run's folder, and creates it if absent.
    ///
    /// # Errors
    /// Another process holds it, or it cannot be created.
    pub fn take(folder: &Path) -> Result<Self, AddressError> {
        let path = folder.join(LOCK_FILE);
        let failed = |verb| {
            let path = path.clone();
            move |source| AddressError::Io { verb, path, source }
        };
        std::fs::create_dir_all(folder).map_err(failed("create the folder of"))?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(failed("read"))?;
                return Err(AddressError::Taken { folder: folder.to_owned(), pid: pid.trim().to_owned() });
            }
            Err(errno) => return Err(failed("lock")(errno.into())),
        }
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(failed("write"))?;
        Ok(Self { folder: folder.to_owned(), file })
    }

    /// Tells where the coordinator is. Readers see the old file or the new one, never half of it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn publish(&self, address: &CoordinatorAddress) -> Result<(), AddressError> {
        let path = self.folder.join(ADDRESS_FILE);
        let draft = self.folder.join(format!("{ADDRESS_FILE}.new"));
        let failed = |source| AddressError::Io { verb: "write", path: path.clone(), source };
        let text = serde_json::to_string_pretty(address).map_err(|error| failed(error.into()))?;
        let mut file = File::create(&draft).map_err(failed)?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&draft, &path).map_err(failed)
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // The address outlives only a killed coordinator; whoever reads it then finds nobody listening.
        let _ = std::fs::remove_file(self.folder.join(ADDRESS_FILE));
        // A process that is just being started holds the file as well until it has become another program: the lock is given
        // up here, not when the last of them closes it.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Reads where a run's coordinator is.
///
/// # Errors
/// There is none, or the file is something else.
pub fn find(folder: &Path) -> Result<CoordinatorAddress, AddressError> {
    let path = folder.join(ADDRESS_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(AddressError::NotRunning { folder: folder.to_owned() });
        }
        Err(source) => return Err(AddressError::Io { verb: "read", path, source }),
    };
    serde_json::from_str(&text).map_err(|error| AddressError::Garbled { path, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> CoordinatorAddress {
        CoordinatorAddress {
            run: RunId("r".into()),
            incarnation: Incarnation(2),
            address: "127.0.0.1:4000".parse().unwrap(),
            pid: 7,
            token: "secret".into(),
        }
    }

    #[test]
    fn a_folder_is_held_by_one_coordinator_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let refused = FolderLock::take(folder.path()).unwrap_err();
        assert!(refused.to_string().ends_with(&format!("is in use by process {}", std::process::id())));
        drop(first);
        assert!(FolderLock::take(folder.path()).is_ok());
    }

    #[test]
    fn a_lock_file_of_a_dead_process_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LOCK_FILE), "1\n").unwrap();
        assert!(FolderLock::take(folder.path()).is_ok());
    }

    #[test]
    fn the_address_is_found_while_the_folder_is_held_and_only_by_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        lock.publish(&address()).unwrap();
        assert_eq!(find(folder.path()).unwrap(), address());
        let mode = std::fs::metadata(folder.path().join(ADDRESS_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(lock);
        assert!(matches!(find(folder.path()), Err(AddressError::NotRunning { .. })));
        std::fs::write(folder.path().join(ADDRESS_FILE), "{").unwrap();
        assert!(matches!(find(folder.path()), Err(AddressError::Garbled { .. })));
    }
}
