//! The agent's connection to its coordinator: look-up, connect, hello, messages and failures.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use longtake_shared::ids::RunId;
use longtake_shared::protocol::{
    AgentMessage, AgentOrder, CONNECTION_WINDOW_BYTES, MAX_MESSAGE_BYTES, STREAM_WINDOW_BYTES, wire,
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use wire::agent_service_client::AgentServiceClient;

use super::core::AgentInput;
use crate::server::address::{Contact, Whereabouts};
use crate::server::{TOKEN_FIELD, reach};

/// Capacity of the message queue.
const QUEUE: usize = 1024;

/// Places of the queue reserved for the agent's own messages.
const RESERVED: usize = 256;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The connection.
pub(super) struct Line {
    whereabouts: Whereabouts,
    state: State,
    /// Address of this machine from which the coordinator was reached; other nodes reach it too.
    local: Option<IpAddr>,
}

enum State {
    /// Not connected.
    Closed,
    /// Connecting.
    Calling(BoxFuture<'static, Result<Reached, String>>),
    /// Connected, without a link.
    Reached(Channel, Contact),
    /// The hello is sent.
    Greeting(Outgoing, BoxFuture<'static, Result<Streaming<wire::AgentOrder>, Status>>),
    /// The link is open.
    Open(Outgoing, Streaming<wire::AgentOrder>),
}

/// The queue to the coordinator.
pub(super) type Outgoing = mpsc::Sender<AgentMessage>;

struct Reached {
    channel: Channel,
    contact: Contact,
    local: IpAddr,
}

impl Line {
    pub(super) fn new(whereabouts: Whereabouts) -> Self {
        Self { whereabouts, state: State::Closed, local: None }
    }

    /// Address of this machine from which the coordinator was reached last.
    pub(super) fn local(&self) -> Option<IpAddr> {
        self.local
    }

    /// Starts to connect, after a pause.
    pub(super) fn call(&mut self, after: Duration) {
        let whereabouts = self.whereabouts.clone();
        self.state = State::Calling(Box::pin(async move {
            tokio::time::sleep(after).await;
            let contact = whereabouts.look_up().map_err(|error| error.to_string())?;
            reach(contact).await
        }));
    }

    /// Closes the connection; no further input arrives from it.
    pub(super) fn hang_up(&mut self) {
        self.state = State::Closed;
    }

    /// Sends a message; the first one opens the link.
    ///
    /// # Errors
    /// The queue is full, because the coordinator receives nothing.
    pub(super) fn send(&mut self, message: AgentMessage) -> Result<(), &'static str> {
        match &self.state {
            State::Reached(channel, contact) => {
                let (outgoing, queue) = mpsc::channel(QUEUE);
                // The queue is empty, and its receiver exists.
                let _ = outgoing.try_send(message);
                let link = link(channel.clone(), contact.token.clone(), queue);
                self.state = State::Greeting(outgoing, Box::pin(link));
                Ok(())
            }
            State::Greeting(outgoing, _) | State::Open(outgoing, _) => match outgoing.try_send(message) {
                Err(mpsc::error::TrySendError::Full(_)) => Err("it receives no messages"),
                // The stream of orders reports the end of a link.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            },
            State::Closed | State::Calling(_) => Ok(()),
        }
    }

    /// The queue, if it has no room for messages of workers, which then wait.
    pub(super) fn full(&self) -> Option<Outgoing> {
        match &self.state {
            State::Greeting(outgoing, _) | State::Open(outgoing, _) => Some(outgoing)
                .filter(|outgoing| outgoing.capacity() <= RESERVED && !outgoing.is_closed())
                .cloned(),
            State::Closed | State::Calling(_) | State::Reached(..) => None,
        }
    }

    /// The next input; pending while the connection is closed. Cancel-safe.
    pub(super) async fn next(&mut self) -> AgentInput {
        loop {
            let input = match &mut self.state {
                State::Closed | State::Reached(..) => std::future::pending().await,
                State::Calling(call) => match call.await {
                    Ok(Reached { channel, contact, local }) => {
                        self.local = Some(local);
                        let run: RunId = contact.run.clone();
                        self.state = State::Reached(channel, contact);
                        return AgentInput::Reached { run };
                    }
                    Err(reason) => AgentInput::Lost { reason },
                },
                State::Greeting(outgoing, link) => match link.await {
                    Ok(orders) => {
                        self.state = State::Open(outgoing.clone(), orders);
                        continue;
                    }
                    Err(status) => refused(&status),
                },
                State::Open(_, orders) => match orders.message().await {
                    Ok(Some(order)) => match AgentOrder::try_from(order) {
                        Ok(order) => return AgentInput::Order(order),
                        Err(malformed) => {
                            tracing::error!(%malformed, "an order of the coordinator is malformed");
                            continue;
                        }
                    },
                    Ok(None) => AgentInput::Lost { reason: "it closed the link".to_owned() },
                    Err(status) => AgentInput::Lost { reason: status.message().to_owned() },
                },
            };
            self.state = State::Closed;
            return input;
        }
    }
}

/// Waits until a queue has room for messages of workers; pending without a queue.
pub(super) async fn room(queue: Option<&Outgoing>) {
    match queue {
        // The permits are returned at once; a closed queue ends the wait.
        Some(queue) => drop(queue.reserve_many(RESERVED + 1).await),
        None => std::future::pending().await,
    }
}

/// The input for a refusal. One that is not final, such as another token or an ending run, may come from an earlier coordinator.
fn refused(status: &Status) -> AgentInput {
    let reason = status.message().to_owned();
    match status.code() {
        Code::InvalidArgument | Code::Unimplemented => AgentInput::Refused { reason },
        _ => AgentInput::Lost { reason },
    }
}

async fn reach(contact: Contact) -> Result<Reached, String> {
    let unreachable = |reason: &dyn std::fmt::Display| {
        format!("the coordinator cannot be reached at {}: {reason}", contact.address)
    };
    let endpoint = Endpoint::from_shared(format!("http://{}", contact.address))
        .map_err(|error| unreachable(&causes(&error)))?;
    let channel = endpoint
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect()
        .await
        .map_err(|error| unreachable(&causes(&error)))?;
    let local = reach::local_address(&contact.address).await.map_err(|error| unreachable(&error))?;
    Ok(Reached { channel, contact, local })
}

/// The innermost cause of an error, which is the most specific.
fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(inner) = last.source() {
        last = inner;
    }
    last.to_string()
}

async fn link(
    channel: Channel,
    token: String,
    queue: mpsc::Receiver<AgentMessage>,
) -> Result<Streaming<wire::AgentOrder>, Status> {
    let mut request = Request::new(ReceiverStream::new(queue).map(wire::AgentMessage::from));
    if let Ok(token) = MetadataValue::try_from(token.as_str()) {
        request.metadata_mut().insert(TOKEN_FIELD, token);
    }
    let answer = AgentServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
        .link(request)
        .await;
    answer.map(tonic::Response::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_other_start_could_mend_is_a_refusal_for_good() {
        let is_final = |status: &Status| matches!(refused(status), AgentInput::Refused { .. });
        assert!(is_final(&Status::invalid_argument("the agent belongs to run `a`")));
        assert!(!is_final(&Status::unauthenticated("the token is not this run's")));
        assert!(!is_final(&Status::unavailable("the run is over")));
    }
}
