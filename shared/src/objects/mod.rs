//! Object stores behind URLs: whole objects by name, one retry policy, create-if-absent.
//!
//! Everything a run must not lose goes through [`crate::objects::Objects`]. An object is written whole or not at all: local files are
//! written under a temporary name, synced, then moved into place together with their folder's entry.

/// A store that fails where a test tells it to.
pub mod faulty;

mod cloud;
mod fate;
mod location;
mod retry;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use crate::hint::Hint;
use fate::Fate;

pub use cloud::Cloud;
pub use location::{LocationError, check_url};
pub use object_store::PutPayload;
pub use retry::RetryPolicy;

/// Objects below one prefix of one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    /// What stands before a full name where people read it.
    shown: Arc<str>,
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
    /// There is no such bucket.
    #[error("there is no bucket or container for `{object}`")]
    NoStore {
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
            Self::Denied { .. } => Some(
                "check the permissions and credentials of `checkpoint.url`, which may have expired; with new ones, go on \
                 with `longtake train --resume`"
                    .into(),
            ),
            Self::NoStore { .. } => {
                Some("create the bucket or container that `checkpoint.url` names, or correct the name".into())
            }
            Self::Failed { .. } => Some(
                "check that the store behind `checkpoint.url` is reachable, then go on with `longtake train --resume`; \
                 what was saved before is whole"
                    .into(),
            ),
        }
    }
}

impl Objects {
    /// Objects below a prefix of a store; `""` is the store's root.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self { store, shown: "".into(), prefix: Path::from(prefix), retry: RetryPolicy::default() }
    }

    /// Opens a URL: `file:///folder` (created where it is missing), `s3://bucket/folder`, `gs://bucket/folder`,
    /// `az://container/folder`, `memory:///`, or a path without a scheme. Credentials come from this process's environment.
    ///
    /// # Errors
    /// A URL that cannot be understood, a store that this build leaves out or whose settings do not fit together, a
    /// folder that cannot be created.
    pub fn open(url: &str) -> Result<Self, LocationError> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::open_with(url, &std::env::vars_os().filter_map(text).collect::<Vec<_>>())
    }

    /// The same with these variables for an environment.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(url: &str, variables: &[(String, String)]) -> Result<Self, LocationError> {
        let location::Opened { store, shown, folder } = location::open(url, variables)?;
        Ok(Self { shown: shown.into(), ..Self::new(store, &folder) })
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
        format!("{}{}", self.shown, self.path(name))
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.prefix.clone(), Path::join)
    }

    /// Writes an object whole, replacing one of the same name. Its content may lie in several pieces of memory.
    ///
    /// # Errors
    /// No space, no permission, or every attempt failed.
    pub async fn put(&self, name: &str, content: impl Into<PutPayload>) -> Result<(), ObjectError> {
        let content = content.into();
        let size = content.content_length() as u64;
        self.retried("write", name, size, |_| {
            let payload = content.clone();
            async move {
                let path = self.path(name);
                let limit = self.retry.patience_for(size);
                within(limit, self.store.put(&path, payload)).await.map(|_| ())
            }
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
        self.retried("create", name, size, |attempt| {
            let bytes = bytes.clone();
            async move {
                let path = self.path(name);
                let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                let payload = PutPayload::from(bytes.clone());
                let limit = self.retry.patience_for(size);
                match within(limit, self.store.put_opts(&path, payload, options)).await {
                    Ok(_) => Ok(Created::New),
                    Err(object_store::Error::AlreadyExists { .. }) => {
                        self.occupant(&path, &bytes, attempt).await
                    }
                    Err(error) => Err(error),
                }
            }
        })
        .await
    }

    /// Whose object it is that was found where one was to be created: after a failed attempt it may be ours. One that
    /// cannot be found is not there yet, as with two writes at a time to some stores: then neither may have won.
    async fn occupant(&self, path: &Path, ours: &Bytes, attempt: u32) -> object_store::Result<Created> {
        let limit = self.retry.patience_for(ours.len() as u64);
        let found = if attempt == 0 {
            within(limit, self.store.head(path)).await.map(|_| Created::Exists)
        } else {
            let bytes = async { self.store.get(path).await?.bytes().await };
            within(limit, bytes)
                .await
                .map(|bytes| if bytes == *ours { Created::New } else { Created::Exists })
        };
        match found {
            Err(object_store::Error::NotFound { .. }) => Err(fate::contended()),
            found => found,
        }
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
            let mut bytes = BytesMut::new();
            let hash = self.stream(name, |chunk, size| {
                bytes.reserve(usize::try_from(size).unwrap_or(0).saturating_sub(bytes.len()));
                bytes.extend_from_slice(chunk);
            });
            let hash = hash.await?;
            Ok((bytes.freeze(), hash))
        })
        .await
    }

    /// An object's BLAKE3 hash and size; its bytes are read but not kept.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn hash(&self, name: &str) -> Result<(blake3::Hash, u64), ObjectError> {
        self.retried("read", name, 0, |_| async move {
            let mut size = 0;
            let hash = self.stream(name, |chunk, _| size += chunk.len() as u64).await?;
            Ok((hash, size))
        })
        .await
    }

    /// Reads an object once and hashes it; hands on each chunk with the size of the whole. An answer that ends early is an
    /// error, whatever the store says.
    async fn stream(
        &self,
        name: &str,
        mut chunk_of: impl FnMut(&[u8], u64),
    ) -> object_store::Result<blake3::Hash> {
        let limit = self.retry.patience;
        let path = self.path(name);
        let result = within(limit, self.store.get(&path)).await?;
        let size = result.meta.size;
        let mut hasher = blake3::Hasher::new();
        let mut chunks = result.into_stream();
        while let Some(chunk) = next(limit, &mut chunks).await? {
            hasher.update(&chunk);
            chunk_of(&chunk, size);
        }
        if hasher.count() != size {
            return Err(fate::cut_short(hasher.count(), size));
        }
        Ok(hasher.finalize())
    }

    /// An object's size in bytes; nothing where it does not exist.
    ///
    /// # Errors
    /// No permission, or every attempt failed.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, ObjectError> {
        let found = self
            .retried("look up", name, 0, |_| async move {
                let path = self.path(name);
                within(self.retry.patience, self.store.head(&path)).await
            })
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
                let mut entries = self.store.list(Some(&self.path(folder)));
                let mut metas = Vec::new();
                while let Some(meta) = next(self.retry.patience, &mut entries).await? {
                    metas.push(meta);
                }
                Ok(metas)
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
            .retried("remove", name, 0, |_| async move {
                let path = self.path(name);
                within(self.retry.patience, self.store.delete(&path)).await
            })
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
                // To write or to list needs no object, only the bucket.
                Fate::Absent if matches!(action, "write" | "create" | "list") => {
                    return Err(ObjectError::NoStore { object, source: error });
                }
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

/// Waits for an attempt, but not for ever: a store that has stalled gives no error.
async fn within<T>(
    limit: Duration,
    attempt: impl Future<Output = object_store::Result<T>>,
) -> object_store::Result<T> {
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err(fate::no_answer(limit)))
}

/// The next item of an answer.
async fn next<T>(
    limit: Duration,
    items: &mut BoxStream<'_, object_store::Result<T>>,
) -> object_store::Result<Option<T>> {
    within(limit, async { items.next().await.transpose() }).await
}

#[cfg(test)]
mod tests;
