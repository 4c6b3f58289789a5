//! The links of an agent's workers: their messages go to the agent's loop as they came, its orders go back.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use super::core::LinkId;
use futures::stream::{self, Stream};
use longtake_shared::protocol::{CONNECTION_WINDOW_BYTES, MAX_MESSAGE_BYTES, STREAM_WINDOW_BYTES, wire};
use longtake_shared::task::StopToken;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use wire::worker_message::Body;
use wire::worker_service_server::{WorkerService, WorkerServiceServer};

/// What the links tell the agent's loop.
#[derive(Debug)]
pub(super) enum WorkerInput {
    /// A worker has said hello.
    Joined {
        /// Its link.
        link: LinkId,
        /// The message it said it with.
        hello: Box<wire::WorkerMessage>,
        /// Where its orders go.
        orders: mpsc::UnboundedSender<wire::WorkerOrder>,
    },
    /// A worker says something else.
    Message {
        /// Its link.
        link: LinkId,
        /// What.
        message: Box<wire::WorkerMessage>,
    },
    /// A worker's link is over; nothing follows.
    Closed {
        /// The link.
        link: LinkId,
    },
}

/// Serves until told to stop.
///
/// # Errors
/// The socket breaks.
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
    /// Links so far.
    links: AtomicU64,
}

/// One link. It lives as long as its answer stream, which also reads: a link needs no task of its own.
struct Link {
    link: LinkId,
    incoming: Streaming<wire::WorkerMessage>,
    orders: mpsc::UnboundedReceiver<wire::WorkerOrder>,
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
        let Some(Body::Hello(_)) = &first.body else {
            return Err(Status::invalid_argument("the first message is not a hello"));
        };
        let link = self.links.fetch_add(1, Ordering::Relaxed);
        let (sender, orders) = mpsc::unbounded_channel();
        let joined = WorkerInput::Joined { link, hello: Box::new(first), orders: sender };
        self.inputs.send(joined).await.map_err(|_| Status::unavailable("the agent ends"))?;
        let link = Link { link, incoming, orders, inputs: self.inputs.clone() };
        Ok(Response::new(Box::pin(stream::unfold(link, Link::next))))
    }
}

impl Link {
    /// The next order for the worker, while its messages are passed on.
    async fn next(mut self) -> Option<(Result<wire::WorkerOrder, Status>, Self)> {
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => return order.map(|order| (Ok(order), self)),
                message = self.incoming.message() => {
                    // A link that breaks is a worker that died, which its pidfd tells.
                    let message = Box::new(message.ok().flatten()?);
                    // A loop that is busy slows its workers' messages down; their progress waits on their side.
                    self.inputs.send(WorkerInput::Message { link: self.link, message }).await.ok()?;
                }
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Where the queue is full, the death of the worker is told a little later, without this.
        let _ = self.inputs.try_send(WorkerInput::Closed { link: self.link });
    }
}
