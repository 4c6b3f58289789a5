//! What a worker has said and no order has answered yet: a coordinator that takes over has to hear it again.

use std::collections::VecDeque;

use longtake_shared::ids::Step;
use longtake_shared::protocol::{Directive, Stage, wire};
use wire::worker_message::Body;

use super::convert::Order;

/// Messages in the order in which they were said.
#[derive(Debug, Default)]
pub(super) struct Retained {
    messages: VecDeque<wire::WorkerMessage>,
}

impl Retained {
    /// Keeps what awaits an answer.
    pub(super) fn said(&mut self, message: &wire::WorkerMessage) {
        match &message.body {
            Some(Body::Left(_)) => self.messages.clear(),
            Some(
                Body::Ready(_)
                | Body::PartsSaved(_)
                | Body::Detections(_)
                | Body::ValidationDone(_)
                | Body::CollectiveFailed(_)
                | Body::Finished(_),
            ) => {}
            _ => return,
        }
        self.messages.push_back(message.clone());
    }

    /// Forgets what an order answers. `Ready` is kept as long as its generation lives: a coordinator that takes over counts
    /// by it who is there.
    pub(super) fn answered(&mut self, order: &Order) {
        match order {
            Order::Directive(Directive::Form(_) | Directive::Shutdown) => self.messages.clear(),
            Order::Directive(Directive::Validated { step, .. }) => {
                let validated = *step;
                self.messages.retain(|message| validation_of(message).is_none_or(|step| step > validated));
            }
            Order::Committed { stage, step, .. } => {
                let committed = (*stage, *step);
                self.messages.retain(|message| saved_at(message).is_none_or(|saved| saved > committed));
            }
            _ => {}
        }
    }

    /// Everything, in its order.
    pub(super) fn all(&self) -> Vec<wire::WorkerMessage> {
        self.messages.iter().cloned().collect()
    }
}

/// The step that a message of a validation belongs to.
fn validation_of(message: &wire::WorkerMessage) -> Option<Step> {
    match &message.body {
        Some(Body::Detections(detections)) => Some(Step(detections.step)),
        Some(Body::ValidationDone(done)) => Some(Step(done.step)),
        _ => None,
    }
}

/// What a message says was saved; the order of stages is that of training.
fn saved_at(message: &wire::WorkerMessage) -> Option<(Stage, Step)> {
    match &message.body {
        Some(Body::PartsSaved(saved)) if saved.stage == i32::from(wire::Stage::Pretrain) => {
            Some((Stage::Pretrain, Step(saved.step)))
        }
        Some(Body::PartsSaved(saved)) => Some((Stage::Train, Step(saved.step))),
        _ => None,
    }
}
