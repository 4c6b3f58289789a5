//! The link of an agent: its messages become inputs of the driver, the driver's orders become its answers.

use std::pin::Pin;

use futures::stream::{self, Stream};
use longtake_shared::ids::RunId;
use longtake_shared::protocol::wire;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use wire::agent_service_server::AgentService;

use super::convert::{self, AgentHello, Malformed};
use crate::driver::Input;
use crate::run::membership::AgentId;

/// Serves the links of all agents.
pub(super) struct Agents {
    pub(super) run: RunId,
    pub(super) inputs: mpsc::Sender<Input>,
}

/// One link. It lives as long as its answer stream, which also reads: a link needs no task of its own.
struct Link {
    agent: AgentId,
    incoming: Streaming<wire::AgentMessage>,
    orders: mpsc::UnboundedReceiver<wire::AgentOrder>,
    /// The other end of `orders`, which says which link is over.
    sender: mpsc::UnboundedSender<wire::AgentOrder>,
    inputs: mpsc::Sender<Input>,
    over: bool,
}

#[tonic::async_trait]
impl AgentService for Agents {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<wire::AgentOrder, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.ok_or_else(|| Status::invalid_argument("no hello"))?;
        let AgentHello { agent, host, slots, held, ended } =
            convert::hello(first, &self.run).map_err(refusal)?;
        let (sender, orders) = mpsc::unbounded_channel();
        let attached =
            Input::AgentAttached { agent: agent.clone(), host, slots, held, ended, orders: sender.clone() };
        self.inputs.send(attached).await.map_err(|_| over())?;
        let link = Link { agent, incoming, orders, sender, inputs: self.inputs.clone(), over: false };
        Ok(Response::new(Box::pin(stream::unfold(link, Link::next))))
    }
}

impl Link {
    /// The next order for the agent, while its messages are taken in.
    async fn next(mut self) -> Option<(Result<wire::AgentOrder, Status>, Self)> {
        if self.over {
            return None;
        }
        loop {
            tokio::select! {
                biased;
                Some(order) = self.orders.recv() => return Some((Ok(order), self)),
                message = self.incoming.message() => match message {
                    // The agent ends the link, after the last order: an end from here could overtake that order.
                    Ok(Some(message)) => {
                        if let Err(status) = self.take(message).await {
                            self.over = true;
                            return Some((Err(status), self));
                        }
                    }
                    Ok(None) => return None,
                    Err(status) => {
                        tracing::debug!(agent = %self.agent, %status, "the link of an agent broke");
                        return None;
                    }
                },
            }
        }
    }

    async fn take(&self, message: wire::AgentMessage) -> Result<(), Status> {
        for input in convert::agent_message(&self.agent, message).map_err(refusal)? {
            if self.inputs.send(input).await.is_err() {
                tracing::trace!("a message has come after the end of the run");
            }
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Where the queue is full or closed, the lease tells it later.
        let detached = Input::AgentDetached { agent: self.agent.clone(), orders: self.sender.clone() };
        let _ = self.inputs.try_send(detached);
    }
}

/// Called by value where `map_err` wants it.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes by value")]
fn refusal(malformed: Malformed) -> Status {
    tracing::warn!(%malformed, "a message was refused");
    Status::invalid_argument(malformed.to_string())
}

fn over() -> Status {
    Status::unavailable("the run is over")
}
