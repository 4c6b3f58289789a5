//! The agent's end of a session whose agent a test plays.

use std::pin::Pin;
use std::sync::Arc;

use futures::executor::block_on;
use futures::{Stream, StreamExt as _};
use longtake_shared::protocol::wire;
use tokio::sync::mpsc;
use wire::worker_order::Body;

use super::inbox::Shared;
use super::link;

/// What an agent has of a worker.
pub(crate) struct Line {
    shared: Arc<Shared>,
    said: Pin<Box<dyn Stream<Item = wire::WorkerMessage> + Send>>,
}

impl Line {
    pub(super) fn new(queue: mpsc::Receiver<wire::WorkerMessage>, shared: Arc<Shared>) -> Self {
        let said = Box::pin(link::outgoing(queue, Arc::clone(&shared)));
        Self { shared, said }
    }

    /// The next message; nothing once the session is gone.
    pub(crate) fn hear(&mut self) -> Option<wire::WorkerMessage> {
        block_on(self.said.next())
    }

    /// Gives orders, as the session's thread does when one comes.
    pub(crate) fn orders(&self) -> impl Fn(wire::Identity, Body) + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move |identity, body| {
            shared.receive(wire::WorkerOrder { identity: Some(identity), body: Some(body) });
        }
    }
}
