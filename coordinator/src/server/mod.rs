//! The coordinator's server: agents and operators come in here, and nothing malformed gets past it.

pub mod address;
pub mod convert;

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

/// The metadata field that carries a run's token.
pub const TOKEN_FIELD: &str = "x-longtake-token";

/// What can go wrong with the server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken, or is not this machine's.
    #[error("cannot listen on `{listen}`, as `cluster.listen` says")]
    Listen {
        /// The address.
        listen: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It broke while it served.
    #[error("the server has broken")]
    Serve(#[source] tonic::transport::Error),
}

impl Hint for ServerError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Listen { .. } => Some(
                "another program listens there: end it, or give `cluster.listen` port 0 to take a free one"
                    .to_owned(),
            ),
            Self::Serve(_) => None,
        }
    }
}

/// Takes the address; gives where others reach it.
///
/// # Errors
/// The address is taken, or is not this machine's.
pub async fn bind(listen: &str) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Listen { listen: listen.to_owned(), source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = reach::reachable(listener.local_addr().map_err(failed)?).await;
    Ok((listener, address))
}

/// Serves until told to stop. What comes in goes to `inputs`.
///
/// # Errors
/// The listener breaks.
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

/// Lets in only who can read the run's folder, where the token lies.
#[derive(Clone)]
struct TokenGuard(String);

impl TokenGuard {
    fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let shown = request.metadata().get(TOKEN_FIELD).map(|token| blake3::hash(token.as_bytes()));
        // Hashes are compared in constant time.
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
