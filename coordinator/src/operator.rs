//! Requests of an operator to a running coordinator in another process.

use std::path::Path;
use std::time::Duration;

use longtake_shared::hint::Hint;
use longtake_shared::protocol::wire;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use wire::operator_service_client::OperatorServiceClient;

use crate::server::TOKEN_FIELD;
use crate::server::address::{self, AddressError, Contact, CoordinatorAddress};
use crate::status::StatusReport;

/// Longest wait for an answer of the coordinator, whose loop never blocks that long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A failure between operator and coordinator.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The coordinator was not found.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The coordinator has published its address but does not answer.
    #[error("the coordinator of run `{run}` (process {pid}) does not answer at {address}")]
    NoAnswer {
        /// The run.
        run: String,
        /// Its process id.
        pid: u32,
        /// Its published address.
        address: std::net::SocketAddr,
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// No coordinator answers at a given address.
    #[error("no coordinator answers at {address}")]
    NotThere {
        /// The address.
        address: String,
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// The coordinator refuses the request.
    #[error("the coordinator refuses: {}", .0.message())]
    Refused(Box<Status>),
    /// The answer cannot be parsed.
    #[error("the coordinator's report cannot be read")]
    Garbled(#[source] serde_json::Error),
}

impl Hint for OperatorError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Address(error) => error.hint(),
            Self::NoAnswer { .. } => {
                Some("if that process has ended, continue with `longtake train --resume`".to_owned())
            }
            Self::Garbled(_) => Some("use the version of `longtake` that started the run".to_owned()),
            Self::Refused(_) | Self::NotThere { .. } => None,
        }
    }
}

/// The status of the run in that folder.
///
/// # Errors
/// Its coordinator is not running, or does not answer.
pub async fn status(run_folder: &Path) -> Result<StatusReport, OperatorError> {
    let (mut client, address) = connect(run_folder).await?;
    let reply = client.status(with_token(wire::StatusRequest {}, &address.token)).await.map_err(refused)?;
    serde_json::from_str(&reply.into_inner().report_json).map_err(OperatorError::Garbled)
}

/// Asks the run to finish its step, save, and end with exit code 75. Returns when the coordinator has accepted the request.
///
/// # Errors
/// Its coordinator is not running, or does not answer.
pub async fn stop(run_folder: &Path) -> Result<(), OperatorError> {
    let (mut client, address) = connect(run_folder).await?;
    client.stop(with_token(wire::StopRequest {}, &address.token)).await.map_err(refused)?;
    Ok(())
}

/// The same for a known coordinator.
///
/// # Errors
/// The coordinator does not answer.
pub async fn stop_at(contact: &Contact) -> Result<(), OperatorError> {
    let no_answer = |source| OperatorError::NotThere { address: contact.address.clone(), source };
    let mut client = OperatorServiceClient::new(channel(&contact.address).await.map_err(no_answer)?);
    client.stop(with_token(wire::StopRequest {}, &contact.token)).await.map_err(refused)?;
    Ok(())
}

async fn connect(
    run_folder: &Path,
) -> Result<(OperatorServiceClient<Channel>, CoordinatorAddress), OperatorError> {
    let address = address::find(run_folder)?;
    let no_answer = |source| OperatorError::NoAnswer {
        run: address.run.0.clone(),
        pid: address.pid,
        address: address.address,
        source,
    };
    let channel = channel(&address.address.to_string()).await.map_err(no_answer)?;
    Ok((OperatorServiceClient::new(channel), address))
}

async fn channel(address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect().await
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(token) = MetadataValue::try_from(token) {
        request.metadata_mut().insert(TOKEN_FIELD, token);
    }
    request
}

fn refused(status: Status) -> OperatorError {
    OperatorError::Refused(Box::new(status))
}
