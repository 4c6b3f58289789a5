//! Stores in a cloud: which there are, and how credentials and endpoints come out of the environment.

use std::sync::Arc;

use object_store::ObjectStore;
use url::Url;

/// Variables of the environment by name.
pub(super) type Variables<'a> = &'a [(String, String)];

/// A kind of store in a cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3 and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Cloud {
    /// The kind that a URL's scheme stands for.
    pub(super) fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Self::S3),
            "gs" => Some(Self::Gcs),
            "az" | "azure" | "abfs" | "abfss" => Some(Self::Azure),
            _ => None,
        }
    }

    /// The feature of this crate that builds it in.
    pub(super) fn feature(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
        }
    }

    /// The variables that matter most, as a hint names them.
    pub(super) fn variables(self) -> &'static str {
        match self {
            Self::S3 => {
                "`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_REGION` (and `AWS_ENDPOINT` for a store that is \
                 not Amazon's)"
            }
            Self::Gcs => {
                "`GOOGLE_SERVICE_ACCOUNT` or `GOOGLE_APPLICATION_CREDENTIALS` to a file of credentials"
            }
            Self::Azure => "`AZURE_STORAGE_ACCOUNT_NAME` and `AZURE_STORAGE_ACCOUNT_KEY`",
        }
    }

    /// The bucket or container of a URL; nothing where this build leaves such stores out.
    pub(super) fn open(self, url: &Url, variables: Variables<'_>) -> Option<Built> {
        match self {
            #[cfg(feature = "s3")]
            Self::S3 => Some(s3(url, variables)),
            #[cfg(feature = "gcs")]
            Self::Gcs => Some(gcs(url, variables)),
            #[cfg(feature = "azure")]
            Self::Azure => Some(azure(url, variables)),
            #[allow(unreachable_patterns, reason = "nothing is left where everything is built in")]
            _ => {
                let _ = (url, variables);
                None
            }
        }
    }
}

/// A store, or why its settings make none.
type Built = object_store::Result<Arc<dyn ObjectStore>>;

#[cfg(feature = "s3")]
fn s3(url: &Url, variables: Variables<'_>) -> Built {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    let builder = AmazonS3Builder::new().with_client_options(http::options()).with_retry(http::once());
    let builder = http::settings::<AmazonS3ConfigKey>("AWS_", variables)
        .fold(builder, |builder, (key, value)| builder.with_config(key, value));
    Ok(Arc::new(builder.with_url(url.as_str()).build()?))
}

#[cfg(feature = "gcs")]
fn gcs(url: &Url, variables: Variables<'_>) -> Built {
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
    let builder =
        GoogleCloudStorageBuilder::new().with_client_options(http::options()).with_retry(http::once());
    let builder = http::settings::<GoogleConfigKey>("GOOGLE_", variables)
        .fold(builder, |builder, (key, value)| builder.with_config(key, value));
    Ok(Arc::new(builder.with_url(url.as_str()).build()?))
}

#[cfg(feature = "azure")]
fn azure(url: &Url, variables: Variables<'_>) -> Built {
    use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
    let builder = MicrosoftAzureBuilder::new().with_client_options(http::options()).with_retry(http::once());
    let builder = http::settings::<AzureConfigKey>("AZURE_", variables)
        .fold(builder, |builder, (key, value)| builder.with_config(key, value));
    Ok(Arc::new(builder.with_url(url.as_str()).build()?))
}

/// What stores behind HTTP have in common.
#[cfg(feature = "cloud")]
mod http {
    use std::str::FromStr;

    use object_store::{BackoffConfig, ClientOptions, RetryConfig};

    use super::Variables;

    /// Settings that the environment makes, as `from_env` of the store's builder reads them.
    pub(super) fn settings<'a, K: FromStr>(
        prefix: &'static str,
        variables: Variables<'a>,
    ) -> impl Iterator<Item = (K, &'a str)> {
        let of_store = variables.iter().filter(move |(name, _)| name.starts_with(prefix));
        of_store.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.as_str())))
    }

    /// How long an attempt may take is this crate's [`super::super::RetryPolicy`]'s business, since it knows the size.
    pub(super) fn options() -> ClientOptions {
        provide_cryptography();
        ClientOptions::new().with_timeout_disabled()
    }

    /// No attempts within an attempt: there is one policy, and it starts each attempt with fresh credentials.
    pub(super) fn once() -> RetryConfig {
        RetryConfig { max_retries: 0, backoff: BackoffConfig::default(), ..RetryConfig::default() }
    }

    fn provide_cryptography() {
        // Only the first call of a process has an effect; one that comes too late finds what it wants.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}
