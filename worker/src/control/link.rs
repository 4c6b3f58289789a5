//! The session's own thread: it holds the connection to the agent, so that a busy training thread never delays a message.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as handover;
use std::thread::JoinHandle;

use futures::stream::{self, Stream, StreamExt as _};
use longtake_shared::hint::append_causes;
use longtake_shared::protocol::wire::worker_service_client::WorkerServiceClient;
use longtake_shared::protocol::{
    CONNECTION_WINDOW_BYTES, MAX_MESSAGE_BYTES, STREAM_WINDOW_BYTES, WorkerMessage, WorkerOrder,
};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::transport::Endpoint;

use super::ControlError;
use super::inbox::Shared;

/// Starts the thread and waits for the connection.
pub(super) fn start(
    socket: &Path,
    queue: mpsc::Receiver<WorkerMessage>,
    shared: Arc<Shared>,
) -> Result<JoinHandle<()>, ControlError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControlError::Start)?;
    let (connected, outcome) = handover::sync_channel(1);
    let socket = socket.to_owned();
    let thread = std::thread::Builder::new()
        .name("session".to_owned())
        .spawn(move || runtime.block_on(run(&socket, queue, &shared, &connected)))
        .map_err(ControlError::Start)?;
    match outcome.recv() {
        Ok(None) => Ok(thread),
        Ok(Some(error)) => Err(error),
        Err(_) => {
            Err(ControlError::Start(io::Error::other("the session's thread ended before it was connected")))
        }
    }
}

async fn run(
    socket: &Path,
    queue: mpsc::Receiver<WorkerMessage>,
    shared: &Arc<Shared>,
    connected: &handover::SyncSender<Option<ControlError>>,
) {
    let mut client = match connect(socket).await {
        Ok(client) => client,
        Err(source) => {
            // The receiver waits for this message, so it exists.
            let _ = connected.send(Some(ControlError::Connect { socket: socket.to_owned(), source }));
            return;
        }
    };
    let _ = connected.send(None);
    let reason = match client.link(outgoing(queue, Arc::clone(shared)).map(Into::into)).await {
        Ok(answer) => {
            let mut orders = answer.into_inner();
            loop {
                shared.flight.beat();
                match tokio::time::timeout(shared.flight.beat_period(), orders.message()).await {
                    Ok(Ok(Some(order))) => match WorkerOrder::try_from(order) {
                        Ok(order) => shared.receive(order),
                        Err(malformed) => tracing::error!(%malformed, "an order of the agent is malformed"),
                    },
                    Ok(Ok(None)) => break "the agent closed it".to_owned(),
                    Ok(Err(status)) => break sentence(&status),
                    Err(_) => {}
                }
            }
        }
        Err(status) => sentence(&status),
    };
    shared.close(&reason);
}

/// The message of a status and its causes.
fn sentence(status: &Status) -> String {
    let mut sentence = status.message().to_owned();
    append_causes(&mut sentence, status);
    sentence
}

async fn connect(
    socket: &Path,
) -> Result<WorkerServiceClient<tonic::transport::Channel>, tonic::transport::Error> {
    let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect()
        .await?;
    Ok(WorkerServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// The messages of the queue, in order. Repeated messages come first, and waiting progress before any later message. Ends with
/// the queue, once all progress is sent.
pub(super) fn outgoing(
    queue: mpsc::Receiver<WorkerMessage>,
    shared: Arc<Shared>,
) -> impl Stream<Item = WorkerMessage> + Send + 'static {
    stream::unfold(Outgoing { queue, shared, held: Held::Nothing }, Outgoing::next)
}

struct Outgoing {
    queue: mpsc::Receiver<WorkerMessage>,
    shared: Arc<Shared>,
    held: Held,
}

/// What follows the waiting progress.
enum Held {
    Nothing,
    Message(Box<WorkerMessage>),
    End,
}

impl Outgoing {
    async fn next(mut self) -> Option<(WorkerMessage, Self)> {
        loop {
            if let Some(first) = self.shared.take_first() {
                return Some((first, self));
            }
            match std::mem::replace(&mut self.held, Held::Nothing) {
                Held::Message(message) => return Some((*message, self)),
                Held::End => return None,
                Held::Nothing => {}
            }
            tokio::select! {
                message = self.queue.recv() => {
                    self.held = message.map_or(Held::End, |message| Held::Message(Box::new(message)));
                }
                () = self.shared.wake.notified() => {}
            }
        }
    }
}
