//! The links of agents: their messages become inputs of the driver, the driver's orders become their answers.
//!
//! An agent that calls again may be faster than the end of its old link: only its newest link speaks for it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, Stream};
use longtake_shared::ids::RunId;
use longtake_shared::protocol::wire;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use wire::agent_message::Body as AgentBody;
use wire::agent_order::Body as OrderBody;
use wire::agent_service_server::AgentService;

use super::convert::{self, AgentHello, Malformed};
use crate::driver::Input;
use crate::run::membership::AgentId;

/// Serves the links of all agents.
pub(super) struct Agents {
    pub(super) run: RunId,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) newest: NewestLinks,
}

/// The newest link of each agent, by a number that rises.
#[derive(Debug, Clone, Default)]
pub(super) struct NewestLinks(Arc<Mutex<BTreeMap<AgentId, u64>>>);

impl NewestLinks {
    fn open(&self, agent: &AgentId) -> u64 {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.entry(agent.clone()).or_default();
        *link += 1;
        *link
    }

    fn is_newest(&self, agent: &AgentId, link: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(agent) == Some(&link)
    }
}

/// One link. It lives as long as its answer stream, which also reads: a link needs no task of its own.
struct Link {
    agent: AgentId,
    number: u64,
    newest: NewestLinks,
    incoming: Streaming<wire::AgentMessage>,
    orders: mpsc::UnboundedReceiver<wire::AgentOrder>,
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
        let number = self.newest.open(&agent);
        let (sender, orders) = mpsc::unbounded_channel();
        let attached =
            Input::AgentAttached { agent: agent.clone(), host, slots, held, ended, orders: sender };
        self.inputs.send(attached).await.map_err(|_| over())?;
        let (newest, inputs) = (self.newest.clone(), self.inputs.clone());
        let link = Link { agent, number, newest, incoming, orders, inputs, over: false };
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
                    Ok(Some(message)) => match self.take(message).await {
                        Ok(Some(answer)) => return Some((Ok(answer), self)),
                        Ok(None) => {}
                        Err(status) => {
                            self.over = true;
                            return Some((Err(status), self));
                        }
                    },
                    Ok(None) => return None,
                    Err(status) => {
                        tracing::debug!(agent = %self.agent, %status, "the link of an agent broke");
                        return None;
                    }
                },
            }
        }
    }

    /// Takes a message in; a renewal is answered once the driver's queue has it.
    async fn take(&self, message: wire::AgentMessage) -> Result<Option<wire::AgentOrder>, Status> {
        if !self.newest.is_newest(&self.agent, self.number) {
            return Err(Status::aborted("the agent has another link"));
        }
        let renews = matches!(message.body, Some(AgentBody::Renewal(_)));
        for input in convert::agent_message(&self.agent, message).map_err(refusal)? {
            if self.inputs.send(input).await.is_err() {
                tracing::trace!("a message has come after the end of the run");
                return Ok(None);
            }
        }
        let body = Some(OrderBody::Renewed(wire::Renewed {}));
        Ok(renews.then_some(wire::AgentOrder { incarnation: 0, body }))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.newest.is_newest(&self.agent, self.number) {
            return;
        }
        // Where the queue is full or closed, the lease tells it later.
        let _ = self.inputs.try_send(Input::AgentDetached { agent: self.agent.clone() });
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
