//! From a URL to the store behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use url::Url;

use super::cloud::{Cloud, Variables};
use crate::hint::{ExitCode, Hint};

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
        /// The feature that would be needed.
        feature: &'static str,
    },
    /// What the environment says of the store does not fit together.
    #[error("the store `{url}` cannot be opened")]
    Settings {
        /// As given.
        url: String,
        /// Which variables it is about.
        cloud: Cloud,
        /// What is wrong.
        source: object_store::Error,
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
        Some(match self {
            Self::NotAUrl { .. } => "write `file:///folder`, `s3://bucket/folder`, `gs://bucket/folder`, \
                                     `az://container/folder`, `memory:///` or a folder's path"
                .into(),
            Self::MissingFeature { feature, .. } => format!(
                "use `file:///folder` on a shared file system, or a build with the feature `{feature}`"
            ),
            Self::Settings { cloud, .. } => format!("set {} in the environment", cloud.variables()),
            Self::Folder { .. } | Self::Unusable { .. } => {
                "check that its parent exists and may be written".into()
            }
        })
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::NotAUrl { .. } | Self::MissingFeature { .. } | Self::Settings { .. } => {
                ExitCode::NeverRestart
            }
            Self::Folder { source, .. } => ExitCode::of_named_file(source),
            Self::Unusable { .. } => ExitCode::Failed,
        }
    }
}

/// Where objects lie.
pub(super) struct Opened {
    /// The store.
    pub(super) store: Arc<dyn ObjectStore>,
    /// What stands before the full name of an object where people read it; a bucket's objects do not name their bucket.
    pub(super) shown: String,
    /// The folder within the store.
    pub(super) folder: String,
}

impl Opened {
    fn root(store: impl ObjectStore) -> Self {
        Self { store: Arc::new(store), shown: String::new(), folder: String::new() }
    }
}

/// Opens a store.
pub(super) fn open(url: &str, variables: Variables<'_>) -> Result<Opened, LocationError> {
    match place(url)? {
        Place::Folder(folder) => open_folder(&folder),
        Place::Memory => Ok(Opened::root(InMemory::new())),
        Place::Cloud(cloud, parsed) => open_cloud(cloud, url, &parsed, variables),
    }
}

/// Checks that a URL, or the path of a folder, names a store of a kind that is known; opens nothing.
///
/// # Errors
/// [`LocationError::NotAUrl`].
pub fn check_url(url: &str) -> Result<(), LocationError> {
    place(url).map(drop)
}

/// The kinds of stores.
enum Place {
    Folder(PathBuf),
    Memory,
    Cloud(Cloud, Url),
}

fn place(url: &str) -> Result<Place, LocationError> {
    let not_a_url =
        |problem: &str| LocationError::NotAUrl { url: url.to_owned(), problem: problem.to_owned() };
    if url.is_empty() {
        return Err(not_a_url("it is empty"));
    }
    if !url.contains("://") {
        return Ok(Place::Folder(url.into()));
    }
    let parsed = Url::parse(url).map_err(|error| not_a_url(&error.to_string()))?;
    match parsed.scheme() {
        "file" => parsed
            .to_file_path()
            .map(Place::Folder)
            .map_err(|()| not_a_url("a file URL has three slashes and no host, as in `file:///folder`")),
        "memory" => Ok(Place::Memory),
        scheme => match Cloud::of_scheme(scheme) {
            Some(_) if parsed.host_str().is_none_or(str::is_empty) => {
                Err(not_a_url(&format!("it names no bucket, as in `{scheme}://bucket/folder`")))
            }
            Some(cloud) => Ok(Place::Cloud(cloud, parsed)),
            None => Err(not_a_url(&format!("the scheme `{scheme}` is not known"))),
        },
    }
}

fn open_cloud(
    cloud: Cloud,
    url: &str,
    parsed: &Url,
    variables: Variables<'_>,
) -> Result<Opened, LocationError> {
    let missing = |feature| LocationError::MissingFeature {
        url: url.to_owned(),
        scheme: parsed.scheme().to_owned(),
        feature,
    };
    let opened = cloud.open(parsed, variables).ok_or_else(|| missing(cloud.feature()))?;
    let store = opened.map_err(|source| LocationError::Settings { url: url.to_owned(), cloud, source })?;
    let path = object_store::path::Path::from_url_path(parsed.path())
        .map_err(|error| LocationError::NotAUrl { url: url.to_owned(), problem: error.to_string() })?;
    let shown = format!("{}/", &parsed[..url::Position::BeforePath]);
    Ok(Opened { store, shown, folder: path.to_string() })
}

/// Local files: written under a temporary name, synced, moved into place; a folder goes with its last file.
fn open_folder(folder: &Path) -> Result<Opened, LocationError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| LocationError::Folder { folder: folder.to_owned(), source })?;
    let store = LocalFileSystem::new_with_prefix(folder)
        .map_err(|source| LocationError::Unusable { folder: folder.to_owned(), source })?;
    Ok(Opened::root(store.with_fsync(true).with_automatic_cleanup(true)))
}
