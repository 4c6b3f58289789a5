//! The links of agents: their messages become inputs of the driver, and the driver's orders go back.
//!
//! An agent may reconnect before its old link has ended, so only its newest link counts.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, Stream};
use longtake_shared::ids::{AgentId, Incarnation, RunId};
use longtake_shared::protocol::{AgentCommand, AgentMessage, AgentOrder, AgentReport, Malformed, wire};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use wire::agent_service_server::AgentService;

use super::intake;
use crate::driver::Input;

/// Serves the links of all agents.
pub(super) struct Agents {
    pub(super) run: RunId,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) newest: NewestLinks,
}

/// The number of the newest link of each agent.
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

/// One link. Its answer stream also reads the messages, so that it needs no task of its own.
struct Link {
    agent: AgentId,
    number: u64,
    newest: NewestLinks,
    incoming: Streaming<wire::AgentMessage>,
    orders: mpsc::UnboundedReceiver<AgentOrder>,
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
        let hello = intake::hello(first, &self.run).map_err(refusal)?;
        let agent = hello.agent.clone();
        let number = self.newest.open(&agent);
        let (sender, orders) = mpsc::unbounded_channel();
        let attached = Input::AgentAttached { hello, orders: sender };
        self.inputs.send(attached).await.map_err(|_| over())?;
        let (newest, inputs) = (self.newest.clone(), self.inputs.clone());
        let link = Link { agent, number, newest, incoming, orders, inputs, over: false };
        Ok(Response::new(Box::pin(stream::unfold(link, Link::next))))
    }
}

impl Link {
    /// The next order for the agent; meanwhile its messages are received.
    async fn next(mut self) -> Option<(Result<wire::AgentOrder, Status>, Self)> {
        if self.over {
            return None;
        }
        loop {
            tokio::select! {
                biased;
                Some(order) = self.orders.recv() => return Some((Ok(order.into()), self)),
                message = self.incoming.message() => match message {
                    // The agent closes the link after the last order: a close from this side could overtake that order.
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

    /// Passes a message to the driver; a renewal is answered once it is in the driver's queue.
    async fn take(&self, message: wire::AgentMessage) -> Result<Option<wire::AgentOrder>, Status> {
        if !self.newest.is_newest(&self.agent, self.number) {
            return Err(Status::aborted("the agent has another link"));
        }
        let report = AgentMessage::try_from(message).map_err(refusal)?.report;
        let renews = matches!(report, AgentReport::Renewal { .. });
        let input = intake::input(&self.agent, report).map_err(refusal)?;
        if self.inputs.send(input).await.is_err() {
            tracing::trace!("a message arrived after the end of the run");
            return Ok(None);
        }
        let renewed = AgentOrder { incarnation: Incarnation(0), command: AgentCommand::Renewed };
        Ok(renews.then(|| renewed.into()))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.newest.is_newest(&self.agent, self.number) {
            return;
        }
        // If the queue is full or closed, the lease expires later.
        let _ = self.inputs.try_send(Input::AgentDetached { agent: self.agent.clone() });
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes by value")]
fn refusal(malformed: Malformed) -> Status {
    tracing::warn!(%malformed, "a message of an agent is malformed");
    Status::invalid_argument(malformed.to_string())
}

fn over() -> Status {
    Status::unavailable("the run is over")
}
