//! From a URL to the store behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use url::Url;

use crate::hint::Hint;

/// A URL that leads to no store.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// It cannot be understood.
    #[error("`{url}` is not the URL of a store: {problem}")]
    NotAUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// This build cannot speak to such a store.
    #[error(
        "`{url}` names a store of kind `{scheme}`, and this build was made without the feature `{feature}`"
    )]
    MissingFeature {
        /// As given.
        url: String,
        /// Its scheme.
        scheme: String,
        /// The feature of object_store that would be needed.
        feature: &'static str,
    },
    /// The folder does not exist and cannot be created.
    #[error("the folder `{}` of the store cannot be created", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder cannot be used.
    #[error("the folder `{}` cannot be used as a store", folder.display())]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// What the store says.
        source: object_store::Error,
    },
}

impl Hint for LocationError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotAUrl { .. } => Some("write `file:///folder`, `memory:///` or a folder's path".into()),
            Self::MissingFeature { .. } => {
                Some("use `file:///folder` on a shared file system, or a build with that feature".into())
            }
            Self::Folder { .. } | Self::Unusable { .. } => {
                Some("check that its parent exists and may be written".into())
            }
        }
    }
}

/// Opens a store: `file:///folder`, `memory:///`, or a folder's path.
pub(super) fn open(url: &str) -> Result<Arc<dyn ObjectStore>, LocationError> {
    let not_a_url =
        |problem: &str| LocationError::NotAUrl { url: url.to_owned(), problem: problem.to_owned() };
    if url.is_empty() {
        return Err(not_a_url("it is empty"));
    }
    if !url.contains("://") {
        return open_folder(Path::new(url));
    }
    let parsed = Url::parse(url).map_err(|error| not_a_url(&error.to_string()))?;
    let missing = |feature| LocationError::MissingFeature {
        url: url.to_owned(),
        scheme: parsed.scheme().to_owned(),
        feature,
    };
    match parsed.scheme() {
        "file" => {
            let folder = parsed.to_file_path().map_err(|()| {
                not_a_url("a file URL has three slashes and no host, as in `file:///folder`")
            })?;
            open_folder(&folder)
        }
        "memory" => Ok(Arc::new(InMemory::new())),
        "s3" | "s3a" => Err(missing("aws")),
        "gs" => Err(missing("gcp")),
        "az" | "azure" | "abfs" | "abfss" => Err(missing("azure")),
        "http" | "https" => Err(missing("http")),
        other => Err(not_a_url(&format!("the scheme `{other}` is not known"))),
    }
}

/// Local files: written under a temporary name, synced, moved into place.
fn open_folder(folder: &Path) -> Result<Arc<dyn ObjectStore>, LocationError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| LocationError::Folder { folder: folder.to_owned(), source })?;
    let store = LocalFileSystem::new_with_prefix(folder)
        .map_err(|source| LocationError::Unusable { folder: folder.to_owned(), source })?;
    Ok(Arc::new(store.with_fsync(true)))
}
