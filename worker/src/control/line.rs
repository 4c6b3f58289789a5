//! The agent's end of a session, for tests that play the agent.

use std::pin::Pin;
use std::sync::Arc;

use futures::executor::block_on;
use futures::{Stream, StreamExt as _};
use longtake_shared::protocol::{WorkerMessage, WorkerOrder};
use tokio::sync::mpsc;

use super::inbox::Shared;
use super::link;

/// The agent's end of the link.
pub(crate) struct Line {
    shared: Arc<Shared>,
    said: Pin<Box<dyn Stream<Item = WorkerMessage> + Send>>,
}

impl Line {
    pub(super) fn new(queue: mpsc::Receiver<WorkerMessage>, shared: Arc<Shared>) -> Self {
        let said = Box::pin(link::outgoing(queue, Arc::clone(&shared)));
        Self { shared, said }
    }

    /// The next message; none once the session has ended.
    pub(crate) fn hear(&mut self) -> Option<WorkerMessage> {
        block_on(self.said.next())
    }

    /// Gives an order, as the session's thread does when one arrives.
    pub(crate) fn orders(&self) -> impl Fn(WorkerOrder) + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move |order| shared.receive(order)
    }
}
