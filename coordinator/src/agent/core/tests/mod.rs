//! What an agent decides, input by input.

mod hangs;

use longtake_shared::hint::ExitCode;
use longtake_shared::ids::{AgentId, Epoch, Generation, Step};
use longtake_shared::protocol::flight::FlightRecord;
use longtake_shared::protocol::stamp::StepPhase;
use longtake_shared::protocol::{
    AgentHello, Doing, ExitCause, FailureScope, HeldWorker, Identity, Progress, Stage,
};
use longtake_shared::units::Seconds;

use super::*;

const LEASE: f64 = 1.0;
const GRACE: f64 = 10.0;

fn s(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// An agent and its clock.
struct Scene {
    core: AgentCore,
    now: Duration,
}

impl Scene {
    fn new(on_loss: OnLoss) -> Self {
        let agent = AgentId("a".into());
        let identity = AgentIdentity { agent, host: "node".into(), slots: 2, on_loss };
        let (core, first) = AgentCore::new(identity, s(100.0));
        assert_eq!(first, [call(0.0)]);
        Self { core, now: s(100.0) }
    }

    /// Belongs to the run, under incarnation 3.
    fn welcomed(on_loss: OnLoss) -> Self {
        let mut scene = Self::new(on_loss);
        assert_eq!(scene.does(reached()), [send(0, AgentReport::Hello(hello(vec![], vec![])))]);
        assert_eq!(scene.does(order(3, welcome())), []);
        scene
    }

    /// Holds worker `w0.0` at link 7 and the hello-less `w1.0`.
    fn with_workers() -> Self {
        let mut scene = Self::welcomed(OnLoss::Reconnect);
        for (id, index) in [("w0.0", 0), ("w1.0", 1)] {
            let start = AgentCommand::StartWorker { worker: worker(id), index };
            assert_eq!(scene.does(order(3, start)), [AgentOutput::Start { worker: worker(id), index }]);
        }
        assert_eq!(scene.does(joined(7, 0)), [from("w0.0", said_hello(0))]);
        scene
    }

    fn does(&mut self, input: AgentInput) -> Vec<AgentOutput> {
        self.core.handle(self.now, input)
    }

    fn after(&mut self, seconds: f64, input: AgentInput) -> Vec<AgentOutput> {
        self.now += s(seconds);
        self.does(input)
    }

    /// Ticks with a renewal that is answered, so that the lease holds.
    fn lives(&mut self, seconds: f64, reading: Option<Reading>) -> Vec<AgentOutput> {
        self.now += s(seconds);
        let outputs = self.does(tick(reading));
        assert!(
            matches!(&outputs[0], AgentOutput::Send(message)
            if matches!(message.report, AgentReport::Renewal { .. })),
            "{outputs:?}"
        );
        assert_eq!(self.does(order(0, AgentCommand::Renewed)), []);
        outputs[1..].to_vec()
    }
}

fn worker(id: &str) -> WorkerId {
    WorkerId(id.into())
}

fn call(after: f64) -> AgentOutput {
    AgentOutput::Call { after: s(after) }
}

fn send(incarnation: u64, report: AgentReport) -> AgentOutput {
    AgentOutput::Send(AgentMessage { incarnation: Incarnation(incarnation), report })
}

fn from(id: &str, message: WorkerMessage) -> AgentOutput {
    from_under(3, id, message)
}

fn from_under(incarnation: u64, id: &str, message: WorkerMessage) -> AgentOutput {
    send(incarnation, AgentReport::FromWorker { worker: worker(id), message })
}

fn reached() -> AgentInput {
    AgentInput::Reached { run: RunId("r".into()) }
}

fn lost() -> AgentInput {
    AgentInput::Lost { reason: "gone".into() }
}

fn order(incarnation: u64, command: AgentCommand) -> AgentInput {
    AgentInput::Order(AgentOrder { incarnation: Incarnation(incarnation), command })
}

fn welcome() -> AgentCommand {
    AgentCommand::Welcome(Terms { lease: s(LEASE), grace: s(GRACE), phase_deadline: s(3.0) })
}

fn hello(held: Vec<HeldWorker>, ended: Vec<WorkerEnd>) -> AgentHello {
    let (run, agent) = (RunId("r".into()), AgentId("a".into()));
    AgentHello { run, agent, host: "node".into(), slots: 2, held, ended }
}

fn worker_hello(index: u32) -> WorkerHello {
    WorkerHello { index, pid: 50 + index, ring_address: "10.0.0.1:9".parse().unwrap() }
}

fn says(report: WorkerReport) -> WorkerMessage {
    WorkerMessage::Report { identity: Identity::default(), report }
}

fn said_hello(index: u32) -> WorkerMessage {
    WorkerMessage::Hello(worker_hello(index))
}

fn progress() -> WorkerReport {
    WorkerReport::Progress(Progress {
        stage: Stage::Train,
        done: 1,
        total: 9,
        epoch: Epoch(0),
        loss: None,
        numbers: BTreeMap::new(),
        elapsed: Seconds(1.0),
    })
}

/// An order for a worker, as an agent forwards it.
fn adopted() -> Box<WorkerOrder> {
    Box::new(WorkerOrder { identity: Identity::default(), order: Order::Adopted, inputs: None })
}

fn joined(link: LinkId, index: u32) -> AgentInput {
    AgentInput::WorkerJoined { link, hello: worker_hello(index) }
}

fn held(id: &str, index: u32, hello: Option<WorkerHello>) -> HeldWorker {
    HeldWorker { worker: worker(id), index, hello }
}

fn ended(id: &str, signal: i32) -> AgentInput {
    AgentInput::Ended {
        worker: worker(id),
        cause: ExitCause::Signal(signal),
        log: vec!["last".into()],
        last: None,
    }
}

fn exited(id: &str, signal: i32) -> WorkerEnd {
    let cause = ExitCause::Signal(signal);
    WorkerEnd { worker: worker(id), cause, log: vec!["last".into()], last: None }
}

fn tick(reading: Option<Reading>) -> AgentInput {
    let readings = reading.map(|reading| (worker("w0.0"), reading)).into_iter().collect();
    AgentInput::Tick { readings }
}

fn record(sequence: u64, phase: StepPhase, entered_at: Duration) -> FlightRecord {
    let (generation, step) = (Generation(1), Step(sequence));
    FlightRecord { sequence, generation, step, phase, resumed: false, entered_at, took: None }
}

fn hung(outputs: &[AgentOutput]) -> Vec<(String, StepPhase, f64, f64)> {
    outputs
        .iter()
        .filter_map(|output| match output {
            AgentOutput::SendWithLog { message, .. } => match &message.report {
                AgentReport::WorkerHung { worker, doing, deadline, .. } => {
                    let tenths = |time: f64| (time * 10.0).round() / 10.0;
                    Some((worker.0.clone(), doing.phase, tenths(doing.since.0), deadline.0))
                }
                _ => None,
            },
            _ => None,
        })
        .collect()
}

#[test]
fn orders_become_what_is_done_to_workers() {
    let mut scene = Scene::with_workers();
    let to = |id: &str| AgentCommand::ToWorker { worker: worker(id), order: adopted() };
    let kill = |id: &str| AgentOutput::Kill { worker: worker(id) };
    let table = [
        // A repeated order starts nothing twice.
        (AgentCommand::StartWorker { worker: worker("w0.0"), index: 0 }, vec![]),
        (to("w0.0"), vec![AgentOutput::Tell { link: 7, order: adopted() }]),
        (to("w1.0"), vec![]),
        (to("unknown"), vec![]),
        (AgentCommand::KillWorker { worker: worker("w1.0") }, vec![kill("w1.0")]),
        (AgentCommand::KillWorker { worker: worker("unknown") }, vec![]),
        (AgentCommand::KillWorkers, vec![kill("w0.0"), kill("w1.0")]),
        (
            AgentCommand::Goodbye { exit: ExitCode::Preempted },
            vec![AgentOutput::End(AgentEnd::Over(ExitCode::Preempted))],
        ),
    ];
    for (body, expected) in table {
        assert_eq!(scene.does(order(3, body.clone())), expected, "{body:?}");
    }
}

#[test]
fn messages_of_workers_are_passed_on_as_they_came() {
    let mut scene = Scene::with_workers();
    let ready = says(WorkerReport::Ready);
    let said = AgentInput::WorkerSaid { link: 7, message: ready.clone() };
    assert_eq!(scene.does(said.clone()), [from("w0.0", ready)]);
    assert_eq!(scene.does(AgentInput::WorkerSaid { link: 8, message: said_hello(0) }), []);
    assert_eq!(scene.does(joined(8, 0)), [], "the worker of that index has joined already");
    assert_eq!(scene.does(joined(8, 5)), [], "nobody was started there");
    let failed =
        says(WorkerReport::Failed { message: "m".into(), hint: None, scope: FailureScope::Run, log: vec![] });
    let noted = WorkerOrder { identity: Identity::default(), order: Order::Noted, inputs: None };
    let noted = Box::new(noted);
    assert_eq!(
        scene.does(AgentInput::WorkerSaid { link: 7, message: failed.clone() }),
        [AgentOutput::Tell { link: 7, order: noted }, from("w0.0", failed)]
    );
    let start_failed = AgentInput::StartFailed { worker: worker("w1.0"), message: "no".into() };
    let told = AgentReport::StartFailed { worker: worker("w1.0"), message: "no".into() };
    assert_eq!(scene.does(start_failed), [send(3, told)]);
}

#[test]
fn an_end_is_told_after_the_last_words_or_after_a_while_without_them() {
    let mut scene = Scene::with_workers();
    assert_eq!(scene.does(ended("w0.0", 9)), [], "its link may still hold something");
    let told = send(3, AgentReport::WorkerExited(exited("w0.0", 9)));
    assert_eq!(scene.does(AgentInput::WorkerSilent { link: 7 }), [told]);
    assert_eq!(scene.does(ended("w1.0", 6)), [send(3, AgentReport::WorkerExited(exited("w1.0", 6)))]);

    let mut scene = Scene::with_workers();
    scene.does(ended("w0.0", 9));
    for _ in 0..4 {
        assert_eq!(scene.lives(0.2, None), []);
    }
    let outputs = scene.after(0.2, tick(None));
    assert_eq!(outputs[0], send(3, AgentReport::WorkerExited(exited("w0.0", 9))));
    assert!(!scene.core.holds(&worker("w0.0")) && scene.core.holds(&worker("w1.0")));
}

#[test]
fn a_lost_coordinator_is_called_until_it_is_back_and_told_what_was_kept() {
    let mut scene = Scene::with_workers();
    assert_eq!(scene.after(0.1, lost()), [call(0.0)]);
    // Nothing is passed on or started meanwhile, ends are kept.
    let ready = says(WorkerReport::Ready);
    assert_eq!(scene.does(AgentInput::WorkerSaid { link: 7, message: ready }), []);
    let start = AgentCommand::StartWorker { worker: worker("w2.0"), index: 2 };
    assert_eq!(scene.does(order(3, start)), []);
    assert_eq!(scene.does(ended("w1.0", 11)), []);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let outputs = scene.after(0.1, lost());
        let [AgentOutput::Call { after }] = outputs[..] else { panic!("it calls again: {outputs:?}") };
        pauses.push(after);
    }
    assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
    assert!(pauses[0] > Duration::ZERO && pauses[9] <= s(0.2), "{pauses:?}");

    let expected = hello(vec![held("w0.0", 0, Some(worker_hello(0)))], vec![exited("w1.0", 11)]);
    assert_eq!(scene.does(reached()), [send(3, AgentReport::Hello(expected.clone()))]);
    // Who was greeted and has gone again gets the same hello.
    assert!(matches!(scene.does(lost())[..], [AgentOutput::Call { .. }]));
    assert_eq!(scene.does(reached()), [send(3, AgentReport::Hello(expected))]);
    assert_eq!(scene.does(order(4, welcome())), []);
    assert!(scene.core.is_welcomed());
    let to = AgentCommand::ToWorker { worker: worker("w0.0"), order: adopted() };
    let tell = AgentOutput::Tell { link: 7, order: adopted() };
    assert_eq!(scene.does(order(4, to.clone())), [tell]);
    assert_eq!(scene.does(order(3, to)), [], "an order of an earlier coordinator");
}

#[test]
fn a_step_is_told_again_until_a_link_has_held_long_enough_for_it_to_be_heard() {
    let mut scene = Scene::with_workers();
    let step = says(progress());
    let said = |link| AgentInput::WorkerSaid { link, message: step.clone() };
    let told = |outputs: &[AgentOutput], incarnation| {
        let same = from_under(incarnation, "w0.0", step.clone());
        outputs.iter().filter(|output| **output == same).count()
    };
    let welcomed = |scene: &mut Scene| {
        scene.does(lost());
        scene.after(0.1, reached());
        told(&scene.after(0.5, order(4, welcome())), 4)
    };
    assert_eq!(told(&scene.does(said(7)), 3), 1);
    assert_eq!(welcomed(&mut scene), 1);
    assert_eq!(told(&scene.does(said(7)), 4), 1);
    assert_eq!(
        welcomed(&mut scene),
        2,
        "the link after the first hello broke before it had carried anything for sure"
    );
    // A renewal that was sent afterwards is answered.
    scene.lives(0.2, None);
    scene.does(said(7));
    assert_eq!(welcomed(&mut scene), 1, "only the one that came last");
}

#[test]
fn what_happens_between_hello_and_welcome_follows_the_welcome() {
    let mut scene = Scene::with_workers();
    scene.does(lost());
    scene.after(0.1, reached());
    let failed = says(WorkerReport::CollectiveFailed { message: "no".into() });
    assert_eq!(scene.does(AgentInput::WorkerSaid { link: 7, message: failed.clone() }), []);
    assert_eq!(scene.does(AgentInput::WorkerSilent { link: 7 }), []);
    assert_eq!(scene.does(ended("w0.0", 9)), []);
    let end = || AgentReport::WorkerExited(exited("w0.0", 9));
    assert_eq!(scene.does(order(4, welcome())), [from_under(4, "w0.0", failed), send(4, end())]);
    // Nobody may have heard it.
    scene.does(lost());
    let AgentOutput::Send(message) = &scene.does(reached())[0] else { panic!("a hello is sent") };
    let AgentReport::Hello(hello) = &message.report else { panic!("{message:?}") };
    assert_eq!(hello.ended, [exited("w0.0", 9)]);
    assert_eq!(scene.does(order(4, welcome())), [], "what the hello told is not told again");
}

#[test]
fn an_end_that_may_not_have_been_heard_is_told_again_and_an_old_one_is_not() {
    let mut scene = Scene::with_workers();
    scene.does(ended("w1.0", 9));
    scene.after(0.5, lost());
    let expected = hello(vec![held("w0.0", 0, Some(worker_hello(0)))], vec![exited("w1.0", 9)]);
    assert_eq!(scene.does(reached()), [send(3, AgentReport::Hello(expected))]);
    scene.does(order(4, welcome()));
    for _ in 0..6 {
        scene.lives(0.2, None);
    }
    scene.does(lost());
    let expected = hello(vec![held("w0.0", 0, Some(worker_hello(0)))], vec![]);
    assert_eq!(scene.does(reached()), [send(4, AgentReport::Hello(expected))]);
}

#[test]
fn the_grace_ends_the_agent_and_a_stopped_machine_prolongs_it() {
    let over =
        |outputs: Vec<AgentOutput>| matches!(outputs[..], [AgentOutput::End(AgentEnd::GraceOver { .. })]);
    let mut scene = Scene::with_workers();
    scene.does(lost());
    for _ in 0..49 {
        assert!(!over(scene.after(0.2, tick(None))) && !over(scene.does(lost())));
    }
    // Everything was stopped for a minute: nobody could have come back.
    assert_eq!(scene.after(60.0, tick(None)), []);
    assert!(!over(scene.does(lost())));
    scene.after(0.2, tick(None));
    let reason = "gone".to_owned();
    assert_eq!(scene.does(lost()), [AgentOutput::End(AgentEnd::GraceOver { grace: s(GRACE), reason })]);
}

#[test]
fn an_agent_of_this_process_ends_with_its_coordinator() {
    let mut scene = Scene::welcomed(OnLoss::End);
    // Its lease is the coordinator's business: both are stopped together.
    let outputs = scene.after(30.0, tick(None));
    assert!(matches!(&outputs[..], [AgentOutput::Send(_)]), "{outputs:?}");
    assert_eq!(scene.does(lost()), [AgentOutput::End(AgentEnd::Lost("gone".into()))]);
    let refused = AgentInput::Refused { reason: "another run".into() };
    assert_eq!(scene.does(refused), [AgentOutput::End(AgentEnd::Refused("another run".into()))]);
}

#[test]
fn an_agent_whose_own_lease_is_over_is_fenced_until_it_is_welcomed_again() {
    let fence = [AgentOutput::HangUp, call(0.0)];
    // Renewals are not answered: the coordinator may have given this agent up.
    let mut scene = Scene::with_workers();
    for _ in 0..5 {
        assert_eq!(scene.after(0.2, tick(None)).len(), 1);
    }
    assert_eq!(scene.after(0.2, tick(None)), fence);
    let start = || AgentCommand::StartWorker { worker: worker("w2.0"), index: 2 };
    assert_eq!(scene.does(order(3, start())), []);

    // It was stopped: what is still in its socket is of a lease that is over.
    let mut scene = Scene::with_workers();
    scene.lives(0.2, None);
    assert_eq!(scene.after(5.0, order(3, start())), fence);
    let ready = says(WorkerReport::Ready);
    assert_eq!(scene.does(AgentInput::WorkerSaid { link: 7, message: ready.clone() }), []);
    scene.does(reached());
    scene.does(order(3, welcome()));
    assert_eq!(scene.does(AgentInput::WorkerSaid { link: 7, message: ready.clone() }), [from("w0.0", ready)]);
    // A goodbye is obeyed at any time.
    let mut scene = Scene::with_workers();
    let outputs = scene.after(5.0, order(3, AgentCommand::Goodbye { exit: ExitCode::Done }));
    assert_eq!(outputs.last(), Some(&AgentOutput::End(AgentEnd::Over(ExitCode::Done))));
}

#[test]
fn an_answer_prolongs_the_lease_from_when_its_renewal_was_sent() {
    let mut scene = Scene::with_workers();
    let renewed = || order(0, AgentCommand::Renewed);
    scene.after(0.2, tick(None));
    assert_eq!(scene.after(0.7, renewed()), []);
    // Sent at 0.2: the lease lasts until 1.2.
    assert_eq!(scene.after(0.2, tick(None)).len(), 1);
    assert_eq!(scene.after(0.2, tick(None)), [AgentOutput::HangUp, call(0.0)]);
}

#[test]
fn a_coordinator_that_takes_the_hello_and_says_nothing_is_called_again() {
    let mut scene = Scene::new(OnLoss::Reconnect);
    scene.does(reached());
    // The machine was stopped meanwhile.
    assert_eq!(scene.after(30.0, tick(None)), []);
    for _ in 0..5 {
        assert_eq!(scene.after(0.2, tick(None)), []);
    }
    let outputs = scene.after(0.2, tick(None));
    assert!(matches!(outputs[..], [AgentOutput::HangUp, AgentOutput::Call { .. }]), "{outputs:?}");
}

#[test]
fn the_welcome_of_an_earlier_coordinator_is_refused() {
    let mut scene = Scene::with_workers();
    scene.does(lost());
    scene.does(reached());
    let outputs = scene.does(order(2, welcome()));
    assert!(matches!(outputs[..], [AgentOutput::HangUp, AgentOutput::Call { .. }]), "{outputs:?}");
    assert!(!scene.core.is_welcomed());
}

#[test]
fn a_worker_that_comes_while_nobody_listens_is_in_the_next_hello() {
    let mut scene = Scene::with_workers();
    scene.does(lost());
    assert_eq!(scene.does(joined(9, 1)), []);
    let both = vec![held("w0.0", 0, Some(worker_hello(0))), held("w1.0", 1, Some(worker_hello(1)))];
    assert_eq!(scene.does(reached()), [send(3, AgentReport::Hello(hello(both, vec![])))]);
}

#[test]
fn renewals_tell_what_workers_do() {
    let mut scene = Scene::with_workers();
    let reading = Reading {
        alive: Some(scene.now),
        current: Some(record(4, StepPhase::Judge, scene.now)),
        finished: vec![],
    };
    let doing = |seconds| Doing { step: Step(4), phase: StepPhase::Judge, since: Seconds(seconds) };
    let renewal = |seconds| send(3, AgentReport::Renewal { doing: vec![(worker("w0.0"), doing(seconds))] });
    assert_eq!(scene.after(0.25, tick(Some(reading))), [renewal(0.25)]);
    assert_eq!(scene.after(0.25, tick(None)), [renewal(0.5)]);
}

#[test]
fn the_terms_of_the_welcome_replace_the_initial_ones() {
    let mut scene = Scene::new(OnLoss::Reconnect);
    assert_eq!(scene.core.terms(), Terms::INITIAL);
    scene = Scene::welcomed(OnLoss::Reconnect);
    let terms = Terms { lease: s(LEASE), grace: s(GRACE), phase_deadline: s(3.0) };
    assert_eq!((scene.core.terms(), scene.core.tick_period()), (terms, s(0.2)));
    assert_eq!(scene.does(lost()), [call(0.0)]);
}
