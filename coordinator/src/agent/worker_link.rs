//! The links of an agent's workers: their messages go to the agent's loop, and its orders go back.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use super::core::LinkId;
use futures::stream::{self, Stream};
use longtake_shared::protocol::{
    CONNECTION_WINDOW_BYTES, MAX_MESSAGE_BYTES, STREAM_WINDOW_BYTES, WorkerHello, WorkerMessage, WorkerOrder,
    wire,
};
use longtake_shared::task::StopToken;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use wire::worker_service_server::{WorkerService, WorkerServiceServer};

/// An input of the agent's loop from a link.
#[derive(Debug)]
pub(super) enum WorkerInput {
    /// A worker has sent its hello.
    Joined {
        /// Its link.
        link: LinkId,
        /// Its first message.
        hello: WorkerHello,
        /// The channel for its orders.
        orders: mpsc::UnboundedSender<WorkerOrder>,
    },
    /// A worker has sent a later message.
    Message {
        /// Its link.
        link: LinkId,
        /// The message.
        message: Box<WorkerMessage>,
    },
    /// A worker's link has closed; no message follows.
    Closed {
        /// The link.
        link: LinkId,
    },
}

/// Serves until it is stopped.
///
/// # Errors
/// The socket fails.
pub(super) async fn serve(
    listener: UnixListener,
    inputs: mpsc::Sender<WorkerInput>,
    mut stop: StopToken,
) -> Result<(), tonic::transport::Error> {
    let service = WorkerServiceServer::new(Workers { inputs, links: AtomicU64::new(0) })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(service)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move { stop.stopped().await })
        .await
}

struct Workers {
    inputs: mpsc::Sender<WorkerInput>,
    /// Number of links so far.
    links: AtomicU64,
}

/// One link. Its answer stream also reads the messages, so that it needs no task of its own.
struct Link {
    link: LinkId,
    incoming: Streaming<wire::WorkerMessage>,
    orders: mpsc::UnboundedReceiver<WorkerOrder>,
    inputs: mpsc::Sender<WorkerInput>,
}

#[tonic::async_trait]
impl WorkerService for Workers {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<wire::WorkerOrder, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<wire::WorkerMessage>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.ok_or_else(|| Status::invalid_argument("no hello"))?;
        let WorkerMessage::Hello(hello) = accepted(first)? else {
            return Err(Status::invalid_argument("the first message is not a hello"));
        };
        let link = self.links.fetch_add(1, Ordering::Relaxed);
        let (sender, orders) = mpsc::unbounded_channel();
        let joined = WorkerInput::Joined { link, hello, orders: sender };
        self.inputs.send(joined).await.map_err(|_| Status::unavailable("the agent is ending"))?;
        let link = Link { link, incoming, orders, inputs: self.inputs.clone() };
        Ok(Response::new(Box::pin(stream::unfold(link, Link::next))))
    }
}

impl Link {
    /// The next order for the worker; meanwhile its messages are forwarded.
    async fn next(mut self) -> Option<(Result<wire::WorkerOrder, Status>, Self)> {
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => return order.map(|order| (Ok(order.into()), self)),
                message = self.incoming.message() => {
                    // When a link breaks, the worker has died, which its pidfd reports.
                    let message = Box::new(accepted(message.ok().flatten()?).ok()?);
                    // A busy loop slows down the messages of its workers; their progress waits on their side.
                    self.inputs.send(WorkerInput::Message { link: self.link, message }).await.ok()?;
                }
            }
        }
    }
}

/// A message of a worker as a domain type. The link of a worker that sends a malformed one is closed.
fn accepted(message: wire::WorkerMessage) -> Result<WorkerMessage, Status> {
    WorkerMessage::try_from(message).map_err(|malformed| {
        tracing::error!(%malformed, "a message of a worker is malformed");
        Status::invalid_argument(malformed.to_string())
    })
}

impl Drop for Link {
    fn drop(&mut self) {
        // If the queue is full, the end of the worker is reported a little later.
        let _ = self.inputs.try_send(WorkerInput::Closed { link: self.link });
    }
}
