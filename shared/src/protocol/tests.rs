//! Every message survives the wire unchanged, and a malformed one is rejected with the name of its field.

use std::sync::Arc;
use std::time::Duration;

use super::stamp::StepPhase;
use super::*;
use crate::hint::ExitCode;
use crate::ids::{AgentId, Epoch, Generation, Incarnation, LaneId, Rank, RunId, Step, WorkerId};
use crate::units::{Seconds, TimeSegment};

fn identity(rank: u32) -> Identity {
    Identity {
        run: RunId("r".into()),
        incarnation: Incarnation(1),
        generation: Generation(2),
        rank: Rank(rank),
    }
}

fn worker() -> WorkerId {
    WorkerId("w0.1.0".into())
}

fn hello() -> WorkerHello {
    WorkerHello { index: 1, pid: 7, ring_address: "10.0.0.1:4000".parse().unwrap() }
}

fn doing() -> Doing {
    Doing { step: Step(4), phase: StepPhase::Reduce, since: Seconds(0.5) }
}

fn end(cause: ExitCause, last: Option<Doing>) -> WorkerEnd {
    WorkerEnd { worker: worker(), cause, log: vec!["last line".into()], last }
}

fn reports() -> Vec<WorkerReport> {
    let kept = Kept {
        stage: SavedStage::Pretrain,
        step: Step(3),
        lanes: vec![LaneId(0), LaneId(2)],
        copies: vec![LaneId(1)],
    };
    let progress = Progress {
        stage: Stage::Memory,
        done: 2,
        total: 9,
        epoch: Epoch(1),
        loss: Some(0.25),
        numbers: [("samples".to_owned(), 2.0)].into(),
        elapsed: Seconds(3.5),
    };
    let saved = SavedParts {
        stage: SavedStage::Train,
        step: Step(6),
        average_map: Some(0.5),
        parts: serde_json::json!({"memory": [0.1, 1e-300]}),
    };
    let detection =
        Detection { label: 3, segment: TimeSegment { start: Seconds(1.0), end: Seconds(2.5) }, score: 0.75 };
    let found = VideoDetections { step: Step(6), video: "v".into(), detections: vec![detection] };
    let failed = |scope| WorkerReport::Failed {
        message: "m".into(),
        hint: Some("h".into()),
        scope,
        log: vec!["l".into()],
    };
    let finished = |ending| WorkerReport::Finished { step: Step(9), ending };
    vec![
        WorkerReport::Ready,
        WorkerReport::Progress(progress),
        WorkerReport::PartsSaved(saved),
        WorkerReport::Detections(found),
        WorkerReport::ValidationDone { step: Step(6) },
        WorkerReport::Warning("w".into()),
        WorkerReport::CollectiveFailed { message: "c".into() },
        failed(FailureScope::Worker),
        failed(FailureScope::Checkpoint),
        failed(FailureScope::Run),
        failed(FailureScope::Forever),
        WorkerReport::Left { kept: None },
        WorkerReport::Left { kept: Some(kept) },
        finished(Ending::Completed),
        finished(Ending::Stopped),
    ]
}

#[test]
fn messages_of_an_agent_and_its_workers_survive_the_wire() {
    let from_worker = |message| AgentReport::FromWorker { worker: worker(), message };
    let mut all = vec![
        AgentReport::Hello(AgentHello {
            run: RunId("r".into()),
            agent: AgentId("a".into()),
            host: "node".into(),
            slots: 4,
            held: vec![
                HeldWorker { worker: worker(), index: 0, hello: Some(hello()) },
                HeldWorker { worker: worker(), index: 1, hello: None },
            ],
            ended: vec![end(ExitCause::Code(1), None)],
        }),
        AgentReport::Renewal { doing: vec![(worker(), doing())] },
        AgentReport::WorkerExited(end(ExitCause::Signal(9), Some(doing()))),
        AgentReport::StartFailed { worker: worker(), message: "m".into() },
        AgentReport::WorkerHung {
            worker: worker(),
            doing: doing(),
            deadline: Seconds(2.0),
            log: vec!["l".into()],
        },
        from_worker(WorkerMessage::Hello(hello())),
    ];
    all.extend(
        reports()
            .into_iter()
            .map(|report| from_worker(WorkerMessage::Report { identity: identity(3), report })),
    );
    for report in all {
        let message = AgentMessage { incarnation: Incarnation(5), report };
        assert_eq!(AgentMessage::try_from(wire::AgentMessage::from(message.clone())), Ok(message));
    }
}

fn formation() -> Formation {
    Formation {
        peers: vec!["127.0.0.1:4000".parse().unwrap(), "[::1]:4001".parse().unwrap()],
        lanes: vec![vec![LaneId(0)], vec![LaneId(1), LaneId(2)]],
        carried: Some(Carried {
            stage: SavedStage::Train,
            step: Step(3),
            holder: Rank(0),
            behind: vec![Rank(1)],
            moves: vec![LaneMove { lane: LaneId(2), from: Rank(0), copy: true }],
        }),
    }
}

fn orders() -> Vec<Order> {
    vec![
        Order::Adopted,
        Order::Train,
        Order::Abort { reason: "a".into() },
        Order::SetFlags(Flags { stop: true, checkpoint: false, reconfigure: true }),
        Order::Committed { stage: SavedStage::Pretrain, step: Step(3), sequence: 8 },
        Order::Validated { step: Step(3), average_map: 0.5, best: true },
        Order::Shutdown,
        Order::Noted,
    ]
}

#[test]
fn orders_for_agents_and_workers_survive_the_wire() {
    let inputs = GenerationInputs {
        run_folder: "runs/r".into(),
        settings_json: "{}".into(),
        resume_json: Some("{\"step\":3}".into()),
    };
    let form = WorkerOrder {
        identity: identity(1),
        order: Order::Form(formation()),
        inputs: Some(Arc::new(inputs)),
    };
    let orders = orders().into_iter().map(|order| WorkerOrder { identity: identity(1), order, inputs: None });
    let to = |order| AgentCommand::ToWorker { worker: worker(), order: Box::new(order) };
    let mut all: Vec<AgentCommand> = orders.chain([form]).map(to).collect();
    let millis = Duration::from_millis;
    all.extend([
        AgentCommand::Welcome(Terms { lease: millis(1500), grace: millis(0), phase_deadline: millis(250) }),
        AgentCommand::StartWorker { worker: worker(), index: 2 },
        AgentCommand::KillWorkers,
        AgentCommand::KillWorker { worker: worker() },
        AgentCommand::Renewed,
        AgentCommand::Goodbye { exit: ExitCode::Preempted },
    ]);
    for command in all {
        let order = AgentOrder { incarnation: Incarnation(5), command };
        assert_eq!(AgentOrder::try_from(wire::AgentOrder::from(order.clone())), Ok(order));
    }
}

fn field_of<T: std::fmt::Debug>(result: Result<T, Malformed>) -> &'static str {
    match result {
        Err(Malformed::Field { field, .. } | Malformed::Missing(field)) => field,
        other => panic!("a field must be named: {other:?}"),
    }
}

fn reported(body: wire::worker_message::Body) -> Result<WorkerMessage, Malformed> {
    wire::WorkerMessage { identity: Some(identity(0).into()), body: Some(body) }.try_into()
}

#[test]
fn a_malformed_message_is_rejected_with_its_field() {
    use wire::worker_message::Body;

    let progress = wire::Progress { stage: 99, ..wire::Progress::default() };
    assert_eq!(field_of(reported(Body::Progress(progress))), "stage");
    let train = wire::Stage::Train.into();
    let saved = wire::PartsSaved { stage: train, parts_json: "{".into(), ..wire::PartsSaved::default() };
    assert_eq!(field_of(reported(Body::PartsSaved(saved.clone()))), "parts_saved.parts_json");
    let unsaved = wire::PartsSaved { stage: wire::Stage::Memory.into(), parts_json: "{}".into(), ..saved };
    assert_eq!(field_of(reported(Body::PartsSaved(unsaved))), "stage");
    for (start_seconds, end_seconds, score) in [(2.0, 1.0, 0.5), (f64::NAN, 1.0, 0.5), (0.0, 1.0, f64::NAN)] {
        let found = wire::Detection { label: 0, start_seconds, end_seconds, score };
        let found = wire::Detections { step: 0, video: "v".into(), detections: vec![found] };
        assert_eq!(field_of(reported(Body::Detections(found))), "detections.detections");
    }
    let failed = wire::Failed { scope: 0, ..wire::Failed::default() };
    assert_eq!(field_of(reported(Body::Failed(failed))), "failed.scope");
    let hello = wire::WorkerHello {
        protocol: PROTOCOL_VERSION,
        ring_address: "here".into(),
        ..wire::WorkerHello::default()
    };
    assert_eq!(field_of(reported(Body::Hello(hello))), "hello.ring_address");
    assert_eq!(field_of(WorkerMessage::try_from(wire::WorkerMessage::default())), "identity");
    assert_eq!(field_of(AgentMessage::try_from(wire::AgentMessage::default())), "agent_message.body");
    assert_eq!(field_of(AgentOrder::try_from(wire::AgentOrder::default())), "agent_order.body");
    assert_eq!(field_of(WorkerOrder::try_from(wire::WorkerOrder::default())), "worker_order.body");
    let stamp = wire::Stamp { phase: "sleeps".into(), ..wire::Stamp::default() };
    let renewal = wire::agent_message::Body::Renewal(wire::Renewal { stamps: vec![stamp] });
    let renewal = wire::AgentMessage { incarnation: 1, body: Some(renewal) };
    assert_eq!(field_of(AgentMessage::try_from(renewal)), "stamp.phase");
}

#[test]
fn a_malformed_formation_is_rejected_with_its_field() {
    let form_of = |change: fn(&mut wire::Form), rank| {
        let order = Order::Form(formation());
        let mut order =
            wire::WorkerOrder::from(WorkerOrder { identity: identity(rank), order, inputs: None });
        let Some(wire::worker_order::Body::Form(form)) = &mut order.body else { panic!("a form was made") };
        change(form);
        WorkerOrder::try_from(order)
    };
    assert!(form_of(|_| {}, 1).is_ok());
    assert_eq!(field_of(form_of(|_| {}, 2)), "form.lanes", "a rank outside of the generation");
    assert_eq!(field_of(form_of(|form| form.peers[0] = "nowhere".into(), 1)), "form.peers");
    assert_eq!(field_of(form_of(|form| drop(form.lanes.pop()), 1)), "form.lanes");
    let far_holder = |form: &mut wire::Form| {
        if let Some(carried) = &mut form.carried {
            carried.holder = 2;
        }
    };
    assert_eq!(field_of(form_of(far_holder, 1)), "form.carried");
}

#[test]
fn another_version_of_the_protocol_is_rejected() {
    let hello = |protocol| wire::AgentHello { protocol, ..wire::AgentHello::default() };
    assert!(AgentHello::try_from(hello(PROTOCOL_VERSION)).is_ok());
    let refused = AgentHello::try_from(hello(99)).unwrap_err();
    assert_eq!(refused, Malformed::Version { sender: "the agent", theirs: 99 });
    let hello = wire::WorkerHello { protocol: 0, ..wire::WorkerHello::default() };
    let refused = WorkerHello::try_from(hello).unwrap_err();
    assert_eq!(refused, Malformed::Version { sender: "the worker", theirs: 0 });
}

#[test]
fn invalid_terms_keep_their_initial_values() {
    let welcome = |lease_seconds, coordinator_grace_seconds, phase_deadline_seconds| {
        Terms::from(wire::Welcome { lease_seconds, coordinator_grace_seconds, phase_deadline_seconds })
    };
    assert_eq!(welcome(-1.0, f64::NAN, f64::INFINITY), Terms::INITIAL);
    assert_eq!(welcome(0.0, -1.0, 0.0), Terms::INITIAL);
    let terms = welcome(2.0, 0.0, 3.0);
    let seconds = Duration::from_secs;
    assert_eq!(terms, Terms { lease: seconds(2), grace: seconds(0), phase_deadline: seconds(3) });
}
