//! The session's own thread: it keeps the connection to the agent, so that a busy training thread never delays a message.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as handover;
use std::thread::JoinHandle;

use futures::stream::{self, Stream};
use longtake_shared::protocol::{CONNECTION_WINDOW_BYTES, MAX_MESSAGE_BYTES, STREAM_WINDOW_BYTES, wire};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::transport::Endpoint;
use wire::worker_service_client::WorkerServiceClient;

use super::ControlError;
use super::session::Shared;

/// Starts the thread and waits until it is connected.
pub(super) fn start(
    socket: &Path,
    queue: mpsc::Receiver<wire::WorkerMessage>,
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
            Err(ControlError::Start(io::Error::other("the session's thread ended before it connected")))
        }
    }
}

async fn run(
    socket: &Path,
    queue: mpsc::Receiver<wire::WorkerMessage>,
    shared: &Arc<Shared>,
    connected: &handover::SyncSender<Option<ControlError>>,
) {
    let mut client = match connect(socket).await {
        Ok(client) => client,
        Err(source) => {
            // The receiver waits for exactly this; it cannot be gone.
            let _ = connected.send(Some(ControlError::Connect { socket: socket.to_owned(), source }));
            return;
        }
    };
    let _ = connected.send(None);
    let reason = match client.link(outgoing(queue, Arc::clone(shared))).await {
        Ok(answer) => {
            let mut orders = answer.into_inner();
            loop {
                match orders.message().await {
                    Ok(Some(order)) => shared.receive(order),
                    Ok(None) => break "the agent closed it".to_owned(),
                    Err(status) => break sentence(&status),
                }
            }
        }
        Err(status) => sentence(&status),
    };
    shared.close(&reason);
}

/// What a status says, and what lies below it.
fn sentence(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
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

/// The queue in its order, with the newest progress before whatever comes next. Ends with the queue.
fn outgoing(
    queue: mpsc::Receiver<wire::WorkerMessage>,
    shared: Arc<Shared>,
) -> impl Stream<Item = wire::WorkerMessage> + Send + 'static {
    stream::unfold((queue, shared), |(mut queue, shared)| async move {
        loop {
            if let Some(progress) = shared.take_progress() {
                return Some((progress, (queue, shared)));
            }
            tokio::select! {
                message = queue.recv() => {
                    // Progress that came in the meantime is sent next, or lost with the session: nobody waits for it.
                    return message.map(|message| (message, (queue, shared)));
                }
                () = shared.wake.notified() => {}
            }
        }
    })
}
