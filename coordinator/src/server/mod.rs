//! The coordinator's gRPC server for agents and operators; it rejects malformed messages.

pub mod address;
pub mod intake;

mod agent_service;
mod operator_service;
pub(crate) mod reach;

use std::net::SocketAddr;

use longtake_shared::hint::Hint;
use longtake_shared::ids::RunId;
use longtake_shared::protocol::{CONNECTION_WINDOW_BYTES, MAX_MESSAGE_BYTES, STREAM_WINDOW_BYTES, wire};
use longtake_shared::task::StopToken;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Status};
use wire::agent_service_server::AgentServiceServer;
use wire::operator_service_server::OperatorServiceServer;

use crate::driver::Input;

/// Name of the metadata field with the run's token.
pub const TOKEN_FIELD: &str = "x-longtake-token";

/// A failure of the server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on `{listen}`, as `cluster.listen` says")]
    Listen {
        /// The address.
        listen: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The server failed while it served.
    #[error("the coordinator's gRPC server failed")]
    Serve(#[source] tonic::transport::Error),
}

impl Hint for ServerError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Listen { .. } => Some(
                "another program may listen there: end it, or set the port of `cluster.listen` to 0 for a free one"
                    .to_owned(),
            ),
            Self::Serve(_) => None,
        }
    }
}

/// Binds the address, and returns the address at which others reach it.
///
/// # Errors
/// The address is in use, or does not belong to this machine.
pub async fn bind(listen: &str) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Listen { listen: listen.to_owned(), source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = reach::reachable(listener.local_addr().map_err(failed)?).await;
    Ok((listener, address))
}

/// Serves until it is stopped. Messages go to `inputs`.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    run: RunId,
    token: String,
    inputs: mpsc::Sender<Input>,
    mut stop: StopToken,
) -> Result<(), ServerError> {
    let guard = TokenGuard(token);
    let agents = AgentServiceServer::new(agent_service::Agents {
        run,
        inputs: inputs.clone(),
        newest: agent_service::NewestLinks::default(),
    })
    .max_decoding_message_size(MAX_MESSAGE_BYTES)
    .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let operators = OperatorServiceServer::new(operator_service::Operators { inputs });
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .layer(tonic::service::InterceptorLayer::new(move |request| guard.check(request)))
        .add_service(agents)
        .add_service(operators)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move { stop.stopped().await })
        .await
        .map_err(ServerError::Serve)
}

/// Admits only clients with the token, which is in the run's folder.
#[derive(Clone)]
struct TokenGuard(String);

impl TokenGuard {
    fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let shown = request.metadata().get(TOKEN_FIELD).map(|token| blake3::hash(token.as_bytes()));
        // Hashes do not leak the token through the time of the comparison.
        if shown != Some(blake3::hash(self.0.as_bytes())) {
            return Err(Status::unauthenticated("the token is not this run's"));
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_listener, address) = bind("127.0.0.1:0").await.unwrap();
            let taken = bind(&address.to_string()).await.unwrap_err();
            assert_eq!(taken.to_string(), format!("cannot listen on `{address}`, as `cluster.listen` says"));
        });
    }
}
