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

#[cfg(test)]
mod tests {
    use longtake_shared::ids::Generation;
    use longtake_shared::protocol::{Ending, Kept, SavedParts};
    use wire::worker_order::Body as Order;

    use super::*;
    use crate::control::Session;
    use crate::control::line::Line;

    fn identity(incarnation: u64, generation: u64) -> wire::Identity {
        wire::Identity { run: "run".into(), incarnation, generation, rank: 1 }
    }

    fn form() -> Order {
        let peers = vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
        let lanes = vec![wire::LaneList::default(); 2];
        Order::Form(wire::Form { peers, lanes, config_json: "{}".into(), ..wire::Form::default() })
    }

    fn name(message: &wire::WorkerMessage) -> String {
        let text = format!("{:?}", message.body.as_ref().unwrap());
        text.chars().take_while(|letter| letter.is_alphanumeric()).collect()
    }

    /// What is heard until a warning that is said now.
    fn heard(session: &Session, line: &mut Line) -> Vec<wire::WorkerMessage> {
        session.warning(Generation(2), "mark").unwrap();
        let mut messages = Vec::new();
        loop {
            let message = line.hear().unwrap();
            if matches!(message.body, Some(Body::Warning(_))) {
                return messages;
            }
            messages.push(message);
        }
    }

    fn names(messages: &[wire::WorkerMessage]) -> Vec<String> {
        messages.iter().map(name).collect()
    }

    fn saved(step: u64) -> SavedParts {
        SavedParts { stage: Stage::Train, step: Step(step), average_map: None, parts: serde_json::json!({}) }
    }

    #[test]
    fn a_coordinator_that_takes_over_hears_what_nobody_answered_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let (session, mut line) = Session::detached(folder.path(), 0);
        let order = line.orders();
        let generation = Generation(2);
        order(identity(1, 2), form());
        session.ready(generation).unwrap();
        order(identity(1, 2), Order::Train(wire::Train {}));
        session.parts_saved(generation, &saved(4)).unwrap();
        session.detections(generation, Step(6), "video", &[]).unwrap();
        session.validation_done(generation, Step(6)).unwrap();
        session.parts_saved(generation, &saved(6)).unwrap();
        let first = heard(&session, &mut line);
        let all = ["Ready", "PartsSaved", "Detections", "ValidationDone", "PartsSaved"];
        assert_eq!(names(&first), all);

        order(identity(2, 2), Order::Adopted(wire::Adopted {}));
        let again = heard(&session, &mut line);
        assert_eq!(again, first, "the same messages under the name of their generation");
        let committed = |step| wire::Committed { stage: wire::Stage::Train.into(), step, sequence: 3 };
        order(identity(2, 2), Order::Committed(committed(4)));
        order(identity(2, 2), Order::Validated(wire::Validated { step: 6, ..wire::Validated::default() }));
        order(identity(2, 2), Order::Adopted(wire::Adopted {}));
        assert_eq!(names(&heard(&session, &mut line)), ["Ready", "PartsSaved"]);
        order(identity(1, 2), Order::Committed(committed(6)));
        order(identity(2, 2), Order::Adopted(wire::Adopted {}));
        assert_eq!(
            names(&heard(&session, &mut line)),
            ["Ready", "PartsSaved"],
            "the first coordinator is no more"
        );

        session.collective_failed(generation, "a peer is gone").unwrap();
        order(identity(2, 2), Order::Adopted(wire::Adopted {}));
        let failed = ["CollectiveFailed", "Ready", "PartsSaved", "CollectiveFailed"];
        let mut said = names(&heard(&session, &mut line));
        said.sort();
        let mut expected = failed.map(str::to_owned);
        expected.sort();
        assert_eq!(said, expected);
        order(identity(2, 2), Order::Abort(wire::Abort { reason: "over".into() }));
        let kept = Kept { stage: Stage::Train, step: Step(6), lanes: vec![], copies: vec![] };
        session.left(generation, Some(&kept)).unwrap();
        assert_eq!(names(&heard(&session, &mut line)), ["Left"]);
        order(identity(3, 2), Order::Adopted(wire::Adopted {}));
        assert_eq!(names(&heard(&session, &mut line)), ["Left"], "what came before is over");
        order(identity(3, 3), form());
        order(identity(3, 3), Order::Adopted(wire::Adopted {}));
        assert_eq!(heard(&session, &mut line), []);
    }

    #[test]
    fn the_end_is_said_again_until_it_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let (session, mut line) = Session::detached(folder.path(), 0);
        let order = line.orders();
        order(identity(1, 2), form());
        session.finished(Generation(2), Step(9), Ending::Completed).unwrap();
        assert_eq!(names(&heard(&session, &mut line)), ["Finished"]);
        order(identity(1, 2), Order::Adopted(wire::Adopted {}));
        assert_eq!(names(&heard(&session, &mut line)), ["Finished"]);
        order(identity(1, 2), Order::Shutdown(wire::Shutdown {}));
        order(identity(1, 2), Order::Adopted(wire::Adopted {}));
        assert_eq!(heard(&session, &mut line), []);
    }

    #[test]
    fn a_newer_generation_ends_the_one_before() {
        use std::sync::{Arc, Mutex};

        let folder = tempfile::tempdir().unwrap();
        let (session, mut line) = Session::detached(folder.path(), 0);
        let order = line.orders();
        order(identity(1, 2), form());
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        session.on_abort(Box::new(move |generation, _| tell.lock().unwrap().push(generation)));
        assert_eq!(session.over(Generation(2)), None);
        order(identity(1, 2), form());
        assert_eq!(session.over(Generation(2)), None, "it is the same one");
        order(identity(1, 3), form());
        assert_eq!(*told.lock().unwrap(), [Generation(2)]);
        assert!(session.over(Generation(2)).is_some() && session.over(Generation(3)).is_none());
        assert!(session.next_within(Generation(2)).is_err());
        assert!(matches!(session.next_directive(), Ok(Directive::Form(_))), "it is not lost");
        session.left(Generation(2), None).unwrap();
        let last = line.hear().unwrap();
        assert_eq!(last.identity, Some(identity(1, 2)));
    }
}
