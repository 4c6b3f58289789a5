//! Between the worker's types and the wire's: the only place on this side that can reject a malformed message.

use longtake_shared::ids::{Generation, Incarnation, LaneId, Rank, RunId, Step};
use longtake_shared::protocol::{
    Assignment, Carried, Detection, Directive, FailureScope, Flags, Kept, LaneMove, PROTOCOL_VERSION,
    Progress, SavedParts, Stage, wire,
};
use wire::worker_message::Body;
use wire::worker_order::Body as OrderBody;

use super::session::Hello;

/// What an agent can send.
#[derive(Debug, PartialEq)]
pub(super) enum Order {
    /// Something for the training thread, in its turn.
    Directive(Directive),
    /// The operator's wishes.
    Flags(Flags),
    /// A checkpoint is in the chain.
    Committed {
        /// The stage that was running.
        stage: Stage,
        /// Steps of it done.
        step: Step,
        /// Place in the chain.
        sequence: u64,
    },
    /// A coordinator has taken over: say again what no order has answered yet.
    Adopted,
    /// The agent has this worker's last words.
    Noted,
}

/// An order that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum MalformedOrder {
    /// Nothing in it.
    #[error("the order has no body")]
    Empty,
    /// A field whose value cannot be.
    #[error("`{field}` is `{value}`, which is not {expected}")]
    Field { field: &'static str, value: String, expected: &'static str },
}

pub(super) fn hello(hello: &Hello) -> Body {
    Body::Hello(wire::WorkerHello {
        protocol: PROTOCOL_VERSION,
        index: hello.index,
        pid: hello.pid,
        ring_address: hello.ring_address.to_string(),
    })
}

pub(super) fn progress(progress: &Progress) -> Body {
    Body::Progress(wire::Progress {
        stage: stage(progress.stage).into(),
        done: progress.done,
        total: progress.total,
        epoch: progress.epoch.0,
        loss: progress.loss,
        numbers: progress.numbers.clone(),
        elapsed_seconds: progress.elapsed.0,
    })
}

pub(super) fn parts_saved(saved: &SavedParts) -> Body {
    Body::PartsSaved(wire::PartsSaved {
        stage: stage(saved.stage).into(),
        step: saved.step.0,
        average_map: saved.average_map,
        parts_json: saved.parts.to_string(),
    })
}

pub(super) fn detections(step: Step, video: &str, detections: &[Detection]) -> Body {
    let detections = detections
        .iter()
        .map(|detection| wire::Detection {
            label: detection.label,
            start_seconds: detection.start.0,
            end_seconds: detection.end.0,
            score: detection.score,
        })
        .collect();
    Body::Detections(wire::Detections { step: step.0, video: video.to_owned(), detections })
}

pub(super) fn left(kept: Option<&Kept>) -> Body {
    let lanes = |lanes: &[LaneId]| lanes.iter().map(|lane| lane.0).collect();
    let kept = kept.map(|kept| wire::Kept {
        stage: stage(kept.stage).into(),
        step: kept.step.0,
        lanes: lanes(&kept.lanes),
        copies: lanes(&kept.copies),
    });
    Body::Left(wire::Left { kept })
}

fn stage(stage: Stage) -> wire::Stage {
    match stage {
        Stage::Pretrain => wire::Stage::Pretrain,
        Stage::Memory => wire::Stage::Memory,
        Stage::Train => wire::Stage::Train,
        Stage::Validate => wire::Stage::Validate,
    }
}

pub(super) fn scope(scope: FailureScope) -> wire::FailureScope {
    match scope {
        FailureScope::Worker => wire::FailureScope::Worker,
        FailureScope::Checkpoint => wire::FailureScope::Checkpoint,
        FailureScope::Run => wire::FailureScope::Run,
        FailureScope::Forever => wire::FailureScope::Forever,
    }
}

/// What an order means.
///
/// # Errors
/// It has no body, or a field whose value cannot be.
pub(super) fn order(order: wire::WorkerOrder) -> Result<Order, MalformedOrder> {
    let identity = order.identity.unwrap_or_default();
    let generation = Generation(identity.generation);
    Ok(match order.body.ok_or(MalformedOrder::Empty)? {
        OrderBody::Form(form) => Order::Directive(Directive::Form(Box::new(assignment(&identity, form)?))),
        OrderBody::Train(_) => Order::Directive(Directive::Train { generation }),
        OrderBody::Abort(abort) => Order::Directive(Directive::Abort { generation, reason: abort.reason }),
        OrderBody::SetFlags(wire::SetFlags { stop, checkpoint, reconfigure }) => {
            Order::Flags(Flags { stop, checkpoint, reconfigure })
        }
        OrderBody::Adopted(_) => Order::Adopted,
        OrderBody::Committed(committed) => Order::Committed {
            stage: known_stage(committed.stage)?,
            step: Step(committed.step),
            sequence: committed.sequence,
        },
        OrderBody::Validated(validated) => Order::Directive(Directive::Validated {
            step: Step(validated.step),
            average_map: validated.average_map,
            best: validated.best,
        }),
        OrderBody::Shutdown(_) => Order::Directive(Directive::Shutdown),
        OrderBody::Noted(_) => Order::Noted,
    })
}

fn assignment(identity: &wire::Identity, form: wire::Form) -> Result<Assignment, MalformedOrder> {
    let peers = form
        .peers
        .iter()
        .map(|peer| {
            peer.parse().map_err(|_| MalformedOrder::Field {
                field: "form.peers",
                value: peer.clone(),
                expected: "an address such as `10.0.0.1:4000`",
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if form.lanes.len() != peers.len() || identity.rank as usize >= peers.len() {
        return Err(MalformedOrder::Field {
            field: "form.lanes",
            value: format!(
                "{} lists for {} ranks, seen by rank {}",
                form.lanes.len(),
                peers.len(),
                identity.rank
            ),
            expected: "one list a rank",
        });
    }
    let resume = form
        .resume_json
        .map(|json| {
            serde_json::from_str(&json).map_err(|error| MalformedOrder::Field {
                field: "form.resume_json",
                value: error.to_string(),
                expected: "a manifest",
            })
        })
        .transpose()?;
    let carried = form.carried.map(|carried| self::carried(&carried, peers.len())).transpose()?;
    Ok(Assignment {
        run: RunId(identity.run.clone()),
        incarnation: Incarnation(identity.incarnation),
        generation: Generation(identity.generation),
        rank: Rank(identity.rank),
        world: peers.len(),
        peers,
        lanes: form.lanes.into_iter().map(|list| list.lanes.into_iter().map(LaneId).collect()).collect(),
        run_folder: form.run_folder.into(),
        config_json: form.config_json,
        resume,
        carried,
    })
}

fn carried(carried: &wire::Carried, world: usize) -> Result<Carried, MalformedOrder> {
    let rank = |rank: u32| {
        if (rank as usize) < world {
            return Ok(Rank(rank));
        }
        Err(MalformedOrder::Field {
            field: "form.carried",
            value: format!("rank {rank}"),
            expected: "a rank of the generation",
        })
    };
    let moves = carried
        .moves
        .iter()
        .map(|moved| Ok(LaneMove { lane: LaneId(moved.lane), from: rank(moved.from)?, copy: moved.copy }));
    Ok(Carried {
        stage: known_stage(carried.stage)?,
        step: Step(carried.step),
        holder: rank(carried.holder)?,
        behind: carried.behind.iter().map(|behind| rank(*behind)).collect::<Result<_, _>>()?,
        moves: moves.collect::<Result<_, _>>()?,
    })
}

fn known_stage(number: i32) -> Result<Stage, MalformedOrder> {
    match wire::Stage::try_from(number) {
        Ok(wire::Stage::Pretrain) => Ok(Stage::Pretrain),
        Ok(wire::Stage::Memory) => Ok(Stage::Memory),
        Ok(wire::Stage::Train) => Ok(Stage::Train),
        Ok(wire::Stage::Validate) => Ok(Stage::Validate),
        _ => Err(MalformedOrder::Field { field: "stage", value: number.to_string(), expected: "a stage" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(peers: &[&str], lanes: usize) -> wire::WorkerOrder {
        wire::WorkerOrder {
            identity: Some(wire::Identity { run: "run".into(), incarnation: 1, generation: 2, rank: 1 }),
            body: Some(OrderBody::Form(wire::Form {
                peers: peers.iter().map(|peer| (*peer).to_owned()).collect(),
                lanes: (0..lanes as u32).map(|lane| wire::LaneList { lanes: vec![lane] }).collect(),
                run_folder: "runs/run".into(),
                config_json: "{}".into(),
                resume_json: Some("{\"step\":3}".into()),
                carried: None,
            })),
        }
    }

    #[test]
    fn an_assignment_is_read_whole() {
        let Ok(Order::Directive(Directive::Form(assignment))) =
            order(form(&["127.0.0.1:4000", "127.0.0.1:4001"], 2))
        else {
            panic!("the order is sound");
        };
        assert_eq!((assignment.generation, assignment.rank, assignment.world), (Generation(2), Rank(1), 2));
        assert_eq!(assignment.lanes, [[LaneId(0)], [LaneId(1)]]);
        assert_eq!(assignment.resume, Some(serde_json::json!({"step": 3})));
    }

    #[test]
    fn a_malformed_order_is_rejected_with_its_field() {
        let field = |order: wire::WorkerOrder| match super::order(order) {
            Err(MalformedOrder::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(form(&["nowhere", "127.0.0.1:1"], 2)), "form.peers");
        assert_eq!(field(form(&["127.0.0.1:1", "127.0.0.1:2"], 1)), "form.lanes");
        assert_eq!(field(form(&["127.0.0.1:1"], 1)), "form.lanes");
        assert_eq!(order(wire::WorkerOrder::default()), Err(MalformedOrder::Empty));
    }
}
