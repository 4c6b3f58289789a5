//! Object stores behind URLs: whole objects by name, one retry policy, create-if-absent.
//!
//! Everything a run must not lose goes through [`crate::objects::Objects`]. An object is written whole or not at all: local files are
//! written under a temporary name, synced, then moved into place together with their folder's entry.

/// A store that fails where a test tells it to.
pub mod faulty;

mod location;
mod retry;

use std::future::Future;
use std::io::ErrorKind;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{GetResult, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use crate::hint::Hint;

pub use location::LocationError;
pub use retry::RetryPolicy;

/// Objects below one prefix of one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    retry: RetryPolicy,
}

/// What create-if-absent found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object did not exist and now does.
    New,
    /// An object of that name exists; it was left alone.
    Exists,
}

/// An object that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It does not exist.
    #[error("object `{object}` does not exist")]
    NotFound {
        /// Full name of the object.
        object: String,
    },
    /// The disk or the quota is used up.
    #[error("no space is left to write `{object}` ({bytes} bytes)")]
    Full {
        /// Full name of the object.
        object: String,
        /// Its size.
        bytes: u64,
    },
    /// Not allowed.
    #[error("access to `{object}` is denied")]
    Denied {
        /// Full name of the object.
        object: String,
        /// What the store says.
        source: object_store::Error,
    },
    /// Every attempt failed.
    #[error("could not {action} `{object}` in {attempts} attempts")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// Full name of the object.
        object: String,
        /// How often.
        attempts: u32,
        /// What the last attempt met.
        source: object_store::Error,
    },
}

impl Hint for ObjectError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => None,
            Self::Full { .. } => {
                Some("free some space or point `checkpoint.url` elsewhere; nothing was half-written".into())
            }
            Self::Denied { .. } => Some("check the permissions and credentials of `checkpoint.url`".into()),
            Self::Failed { .. } => Some("check that the store behind `checkpoint.url` is reachable".into()),
        }
    }
}

impl Objects {
    /// Objects below a prefix of a store; `""` is the store's root.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self { store, prefix: Path::from(prefix), retry: RetryPolicy::default() }
    }

    /// Opens a URL: `file:///folder` (created where it is missing), `memory:///`, or a path without a scheme.
    ///
    /// # Errors
    /// A URL that cannot be understood, a store that this build leaves out, a folder that cannot be created.
    pub fn open(url: &str) -> Result<Self, LocationError> {
        Ok(Self::new(location::open(url)?, ""))
    }

    /// With another retry policy.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The objects below a folder of these.
    #[must_use]
    pub fn below(&self, folder: &str) -> Self {
        Self { prefix: self.path(folder), ..self.clone() }
    }

    /// Full name of an object, as errors give it.
    pub fn full_name(&self, name: &str) -> String {
        self.path(name).to_string()
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.prefix.clone(), Path::join)
    }

    /// Writes an object whole, replacing one of the same name.
    ///
    /// # Errors
    /// No space, no permission, or every attempt failed.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ObjectError> {
        let size = bytes.len() as u64;
        self.retried("write", name, size, |_| {
            let payload = PutPayload::from(bytes.clone());
            async move { self.store.put(&self.path(name), payload).await.map(|_| ()) }
        })
        .await
    }

    /// Writes an object whole unless one of that name exists.
    ///
    /// An attempt that failed may nevertheless have reached the store; an object found by a later attempt counts as
    /// new if it holds these very bytes.
    ///
    /// # Errors
    /// No space, no permission, or every attempt failed.
    pub async fn create(&self, name: &str, bytes: Bytes) -> Result<Created, ObjectError> {
        let size = bytes.len() as u64;
        let (outcome, attempt) = self
            .retried("create", name, size, |attempt| {
                let payload = PutPayload::from(bytes.clone());
                async move {
                    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                    match self.store.put_opts(&self.path(name), payload, options).await {
                        Ok(_) => Ok((Created::New, attempt)),
                        Err(object_store::Error::AlreadyExists { .. }) => Ok((Created::Exists, attempt)),
                        Err(error) => Err(error),
                    }
                }
            })
            .await?;
        if outcome == Created::Exists && attempt > 0 && self.get(name).await? == bytes {
            return Ok(Created::New);
        }
        Ok(outcome)
    }

    /// An object's bytes.
    ///
    /// # Errors
    /// It does not exist, no permission, or every attempt failed.
    pub async fn get(&self, name: &str) -> Result<Bytes, ObjectError> {
        Ok(self.get_hashed(name).await?.0)
    }

    /// An object's bytes and their BLAKE3 hash, taken while they stream in.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_hashed(&self, name: &str) -> Result<(Bytes, blake3::Hash), ObjectError> {
        self.retried("read", name, 0, |_| async move {
            let result = self.store.get(&self.path(name)).await?;
            let mut bytes = BytesMut::with_capacity(usize::try_from(result.meta.size).unwrap_or(0));
            let hash = hash_stream(result, |chunk| bytes.extend_from_slice(chunk)).await?;
            Ok((bytes.freeze(), hash))
        })
        .await
    }

    /// An object's BLAKE3 hash; its bytes are read but not kept.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn hash(&self, name: &str) -> Result<blake3::Hash, ObjectError> {
        self.retried("read", name, 0, |_| async move {
            hash_stream(self.store.get(&self.path(name)).await?, |_| ()).await
        })
        .await
    }

    /// An object's size in bytes; nothing where it does not exist.
    ///
    /// # Errors
    /// No permission, or every attempt failed.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, ObjectError> {
        let found = self
            .retried("look up", name, 0, |_| async move { self.store.head(&self.path(name)).await })
            .await;
        match found {
            Ok(meta) => Ok(Some(meta.size)),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Names (relative to these objects) and sizes of all objects below a folder, sorted by name.
    ///
    /// # Errors
    /// No permission, or every attempt failed.
    pub async fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, ObjectError> {
        let metas = self
            .retried("list", folder, 0, |_| async move {
                self.store.list(Some(&self.path(folder))).try_collect::<Vec<_>>().await
            })
            .await?;
        let mut found: Vec<(String, u64)> = metas
            .into_iter()
            .filter_map(|meta| {
                let parts = meta.location.prefix_match(&self.prefix)?;
                let name = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
                Some((name, meta.size))
            })
            .collect();
        found.sort();
        Ok(found)
    }

    /// Removes an object; one that does not exist is removed already.
    ///
    /// # Errors
    /// No permission, or every attempt failed.
    pub async fn delete(&self, name: &str) -> Result<(), ObjectError> {
        let gone = self
            .retried("remove", name, 0, |_| async move { self.store.delete(&self.path(name)).await })
            .await;
        match gone {
            Err(ObjectError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// Tries an operation as often as the policy says, unless its error is one that no retry mends.
    async fn retried<T, F, Fut>(
        &self,
        action: &'static str,
        name: &str,
        size: u64,
        operation: F,
    ) -> Result<T, ObjectError>
    where
        F: Fn(u32) -> Fut,
        Fut: Future<Output = object_store::Result<T>>,
    {
        let object = self.full_name(name);
        let mut attempt = 0;
        loop {
            let error = match operation(attempt).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            attempt += 1;
            match Fate::of(&error) {
                Fate::Absent => return Err(ObjectError::NotFound { object }),
                Fate::Full => return Err(ObjectError::Full { object, bytes: size }),
                Fate::Denied => return Err(ObjectError::Denied { object, source: error }),
                Fate::Final => {
                    return Err(ObjectError::Failed { action, object, attempts: attempt, source: error });
                }
                Fate::Transient => {}
            }
            let Some(delay) = self.retry.delay(attempt, &object) else {
                return Err(ObjectError::Failed { action, object, attempts: attempt, source: error });
            };
            tracing::warn!(object, attempt, %error, "could not {action} an object, trying again");
            tokio::time::sleep(delay).await;
        }
    }
}

/// Hashes what streams in and hands on each chunk.
async fn hash_stream(
    result: GetResult,
    mut chunk_of: impl FnMut(&[u8]),
) -> object_store::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut stream = result.into_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        hasher.update(&chunk);
        chunk_of(&chunk);
    }
    Ok(hasher.finalize())
}

/// What an error means for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Transient,
    Final,
    Absent,
    Full,
    Denied,
}

impl Fate {
    fn of(error: &object_store::Error) -> Self {
        use object_store::Error;
        match error {
            Error::NotFound { .. } => Self::Absent,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Denied,
            Error::Generic { .. } => match io_kind(error) {
                Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) => {
                    Self::Full
                }
                Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => Self::Denied,
                _ => Self::Transient,
            },
            _ => Self::Final,
        }
    }
}

/// The operating system's error below a store's error.
fn io_kind(error: &object_store::Error) -> Option<ErrorKind> {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = inner.source();
    }
    None
}

#[cfg(test)]
mod tests;
