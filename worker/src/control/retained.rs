//! The messages of a worker that no order has answered: a coordinator that takes over must receive them again.

use std::collections::VecDeque;

use longtake_shared::ids::Step;
use longtake_shared::protocol::{Order, SavedStage, WorkerMessage, WorkerReport};

/// Unanswered messages, in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Retained {
    messages: VecDeque<WorkerMessage>,
}

impl Retained {
    /// Keeps a message that awaits an answer.
    pub(super) fn said(&mut self, message: &WorkerMessage) {
        let WorkerMessage::Report { report, .. } = message else { return };
        match report {
            WorkerReport::Left { .. } => self.messages.clear(),
            WorkerReport::Ready
            | WorkerReport::PartsSaved(_)
            | WorkerReport::Detections(_)
            | WorkerReport::ValidationDone { .. }
            | WorkerReport::CollectiveFailed { .. }
            | WorkerReport::Finished { .. } => {}
            WorkerReport::Progress(_) | WorkerReport::Warning(_) | WorkerReport::Failed { .. } => return,
        }
        self.messages.push_back(message.clone());
    }

    /// Drops the messages that an order answers. `Ready` is kept until the generation ends: a coordinator that takes over
    /// counts the members by it.
    pub(super) fn answered(&mut self, order: &Order) {
        match order {
            Order::Form(_) | Order::Shutdown => self.messages.clear(),
            Order::Validated { step, .. } => {
                let validated = *step;
                self.messages.retain(|message| validation_of(message).is_none_or(|step| step > validated));
            }
            Order::Committed { stage, step, .. } => {
                let committed = (*stage, *step);
                self.messages.retain(|message| saved_at(message).is_none_or(|saved| saved > committed));
            }
            Order::Adopted | Order::Train | Order::Abort { .. } | Order::SetFlags(_) | Order::Noted => {}
        }
    }

    /// All messages, in order.
    pub(super) fn all(&self) -> Vec<WorkerMessage> {
        self.messages.iter().cloned().collect()
    }
}

/// The step of the validation that a message belongs to.
fn validation_of(message: &WorkerMessage) -> Option<Step> {
    match message {
        WorkerMessage::Report { report: WorkerReport::Detections(found), .. } => Some(found.step),
        WorkerMessage::Report { report: WorkerReport::ValidationDone { step }, .. } => Some(*step),
        _ => None,
    }
}

/// The checkpoint that a message belongs to; stages are ordered as they run.
fn saved_at(message: &WorkerMessage) -> Option<(SavedStage, Step)> {
    match message {
        WorkerMessage::Report { report: WorkerReport::PartsSaved(saved), .. } => {
            Some((saved.stage, saved.step))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use longtake_shared::ids::{Generation, Incarnation, Rank, RunId};
    use longtake_shared::protocol::{
        Ending, Formation, GenerationInputs, Identity, Kept, SavedParts, WorkerOrder,
    };

    use super::*;
    use crate::control::line::Line;
    use crate::control::{Directive, Session};

    fn identity(incarnation: u64, generation: u64) -> Identity {
        let run = RunId("run".into());
        let (incarnation, generation) = (Incarnation(incarnation), Generation(generation));
        Identity { run, incarnation, generation, rank: Rank(1) }
    }

    fn form() -> Order {
        let peers = vec!["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()];
        Order::Form(Formation { peers, lanes: vec![vec![]; 2], carried: None })
    }

    /// Gives orders of an incarnation and a generation.
    fn orders(line: &Line) -> impl Fn(Identity, Order) + use<> {
        let give = line.orders();
        move |identity, order| {
            let (run_folder, settings_json) = ("runs/run".into(), "{}".into());
            let inputs = GenerationInputs { run_folder, settings_json, resume_json: None };
            let inputs = matches!(order, Order::Form(_)).then(|| Arc::new(inputs));
            give(WorkerOrder { identity, order, inputs });
        }
    }

    fn report(message: &WorkerMessage) -> &WorkerReport {
        let WorkerMessage::Report { report, .. } = message else { panic!("no hello follows: {message:?}") };
        report
    }

    fn name(message: &WorkerMessage) -> String {
        let text = format!("{:?}", report(message));
        text.chars().take_while(|letter| letter.is_alphanumeric()).collect()
    }

    /// The messages that arrive before a warning that is sent now.
    fn heard(session: &Session, line: &mut Line) -> Vec<WorkerMessage> {
        session.warning(Generation(2), "mark").unwrap();
        let mut messages = Vec::new();
        loop {
            let message = line.hear().unwrap();
            if matches!(report(&message), WorkerReport::Warning(_)) {
                return messages;
            }
            messages.push(message);
        }
    }

    fn names(messages: &[WorkerMessage]) -> Vec<String> {
        messages.iter().map(name).collect()
    }

    fn saved(step: u64) -> SavedParts {
        SavedParts {
            stage: SavedStage::Train,
            step: Step(step),
            average_map: None,
            parts: serde_json::json!({}),
        }
    }

    #[test]
    fn a_coordinator_that_takes_over_hears_what_nobody_answered_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let (session, mut line) = Session::detached(folder.path(), 0);
        let order = orders(&line);
        let generation = Generation(2);
        order(identity(1, 2), form());
        session.ready(generation).unwrap();
        order(identity(1, 2), Order::Train);
        session.parts_saved(generation, saved(4)).unwrap();
        session.detections(generation, Step(6), "video", Vec::new()).unwrap();
        session.validation_done(generation, Step(6)).unwrap();
        session.parts_saved(generation, saved(6)).unwrap();
        let first = heard(&session, &mut line);
        let all = ["Ready", "PartsSaved", "Detections", "ValidationDone", "PartsSaved"];
        assert_eq!(names(&first), all);

        order(identity(2, 2), Order::Adopted);
        let again = heard(&session, &mut line);
        assert_eq!(again, first, "the same messages under the name of their generation");
        let committed = |step| Order::Committed { stage: SavedStage::Train, step: Step(step), sequence: 3 };
        order(identity(2, 2), committed(4));
        order(identity(2, 2), Order::Validated { step: Step(6), average_map: 0.0, best: false });
        order(identity(2, 2), Order::Adopted);
        assert_eq!(names(&heard(&session, &mut line)), ["Ready", "PartsSaved"]);
        order(identity(1, 2), committed(6));
        order(identity(2, 2), Order::Adopted);
        assert_eq!(
            names(&heard(&session, &mut line)),
            ["Ready", "PartsSaved"],
            "the first coordinator is no more"
        );

        session.collective_failed(generation, "a peer is gone").unwrap();
        order(identity(2, 2), Order::Adopted);
        let failed = ["CollectiveFailed", "Ready", "PartsSaved", "CollectiveFailed"];
        let mut said = names(&heard(&session, &mut line));
        said.sort();
        let mut expected = failed.map(str::to_owned);
        expected.sort();
        assert_eq!(said, expected);
        order(identity(2, 2), Order::Abort { reason: "over".into() });
        let kept = Kept { stage: SavedStage::Train, step: Step(6), lanes: vec![], copies: vec![] };
        session.left(generation, Some(kept.clone())).unwrap();
        assert_eq!(names(&heard(&session, &mut line)), ["Left"]);
        order(identity(3, 2), Order::Adopted);
        assert_eq!(names(&heard(&session, &mut line)), ["Left"], "what came before is over");
        order(identity(3, 3), form());
        order(identity(3, 3), Order::Adopted);
        assert_eq!(heard(&session, &mut line), []);
    }

    #[test]
    fn the_end_is_said_again_until_it_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let (session, mut line) = Session::detached(folder.path(), 0);
        let order = orders(&line);
        order(identity(1, 2), form());
        session.finished(Generation(2), Step(9), Ending::Completed).unwrap();
        assert_eq!(names(&heard(&session, &mut line)), ["Finished"]);
        order(identity(1, 2), Order::Adopted);
        assert_eq!(names(&heard(&session, &mut line)), ["Finished"]);
        order(identity(1, 2), Order::Shutdown);
        order(identity(1, 2), Order::Adopted);
        assert_eq!(heard(&session, &mut line), []);
    }

    #[test]
    fn a_newer_generation_ends_the_one_before() {
        use std::sync::Mutex;

        let folder = tempfile::tempdir().unwrap();
        let (session, mut line) = Session::detached(folder.path(), 0);
        let order = orders(&line);
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
        assert!(matches!(last, WorkerMessage::Report { identity: last, .. } if last == identity(1, 2)));
    }
}
