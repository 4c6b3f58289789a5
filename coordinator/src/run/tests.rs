//! The engine as a table: in this state, at this event, exactly these commands. And random histories, in which the
//! invariants hold and every run ends.

use longtake_shared::ids::{Epoch, LaneId, Rank};
use longtake_shared::protocol::{Ending, ExitCause, SavedParts};
use longtake_shared::units::Seconds;
use proptest::prelude::*;

use super::command::CommitRequest;
use super::event::WorkerReport;
use super::phase::PhaseKind;
use super::*;
use crate::updates::Outcome;

const LEASE: Duration = Duration::from_secs(1);

fn settings(workers: usize) -> Settings {
    Settings {
        run: RunId("r".into()),
        workers,
        lanes: 4,
        lease: LEASE,
        gather_timeout: Duration::from_mins(1),
        started_from: None,
    }
}

/// A run of two workers that stands where the test needs it.
struct Scene {
    engine: RunEngine,
    now: Duration,
}

impl Scene {
    fn gathering() -> Self {
        let engine = RunEngine::new(settings(2), Incarnation(3), Generation(8), Duration::ZERO);
        let mut scene = Self { engine, now: Duration::ZERO };
        scene.at(
            0.0,
            Event::AgentConnected {
                agent: agent(),
                host: "node".into(),
                slots: 2,
                held: vec![],
                ended: vec![],
            },
        );
        scene
    }

    fn forming() -> Self {
        let mut scene = Self::gathering();
        scene.at(0.1, joined(0));
        scene.at(0.1, joined(1));
        scene
    }

    fn training() -> Self {
        let mut scene = Self::forming();
        scene.tells(0, WorkerReport::Ready);
        scene.tells(1, WorkerReport::Ready);
        assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Training);
        scene
    }

    fn at(&mut self, seconds: f64, event: Event) -> Vec<Command> {
        self.now = self.now.max(Duration::from_secs_f64(seconds));
        self.engine.handle(self.now, event)
    }

    fn happens(&mut self, event: Event) -> Vec<Command> {
        self.engine.handle(self.now, event)
    }

    fn tells(&mut self, rank: u32, report: WorkerReport) -> Vec<Command> {
        self.happens(Event::FromWorker { worker: worker(rank), identity: identity(rank, 9), report })
    }

    fn saves(&mut self, rank: u32, step: u64) -> Vec<Command> {
        let saved = SavedParts {
            stage: Stage::Train,
            step: Step(step),
            average_map: None,
            parts: serde_json::json!({ "from": rank }),
        };
        self.tells(rank, WorkerReport::PartsSaved(saved))
    }

    /// Lets everyone go, and gives what the run ended with.
    fn outcome(&mut self) -> Outcome {
        for rank in 0..2 {
            self.happens(exited(rank, ExitCause::Code(0)));
        }
        match &self.engine.state().phase {
            Phase::Finished { outcome } => outcome.clone(),
            other => panic!("the run has not finished: {other:?}"),
        }
    }
}

fn agent() -> AgentId {
    AgentId("a".into())
}

fn worker(index: u32) -> WorkerId {
    membership::worker_id(index as usize, index as usize)
}

fn both() -> Vec<WorkerId> {
    vec![worker(0), worker(1)]
}

fn identity(rank: u32, generation: u64) -> Identity {
    Identity {
        run: RunId("r".into()),
        incarnation: Incarnation(3),
        generation: Generation(generation),
        rank: Rank(rank),
    }
}

fn ring(index: u32) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([127, 0, 0, 1], 4000 + index as u16))
}

fn joined(index: u32) -> Event {
    Event::WorkerJoined { worker: worker(index), ring_address: ring(index), pid: 100 + index }
}

fn exited(index: u32, cause: ExitCause) -> Event {
    Event::WorkerExited(event::WorkerEnd {
        worker: worker(index),
        cause,
        log: vec!["last".into()],
        last: None,
    })
}

fn progress(done: u64) -> WorkerReport {
    WorkerReport::Progress(Progress {
        stage: Stage::Train,
        done,
        total: 10,
        epoch: Epoch(0),
        loss: Some(1.0),
        numbers: BTreeMap::new(),
        elapsed: Seconds(1.0),
    })
}

fn tell(workers: Vec<WorkerId>, order: Order) -> Command {
    Command::Tell { generation: Generation(9), workers, order }
}

fn committed(step: u64) -> Event {
    Event::Committed { stage: Stage::Train, step: Step(step), sequence: 1 }
}

#[test]
fn an_agent_is_asked_for_the_workers_that_are_missing() {
    let mut engine = RunEngine::new(settings(2), Incarnation(1), Generation(0), Duration::ZERO);
    let start = |agent: &str, index: u32| Command::StartWorker {
        agent: AgentId(agent.into()),
        worker: worker(index),
        index: index as usize,
    };
    let connected = |agent: &str| Event::AgentConnected {
        agent: AgentId(agent.into()),
        host: "n".into(),
        slots: 1,
        held: vec![],
        ended: vec![],
    };
    assert_eq!(engine.handle(Duration::ZERO, connected("a")), [start("a", 0)]);
    assert_eq!(engine.handle(Duration::ZERO, connected("b")), [start("b", 1)]);
    assert_eq!(engine.handle(Duration::ZERO, connected("c")), []);
}

#[test]
fn the_last_worker_to_come_forms_a_generation_that_was_journaled_first() {
    let mut scene = Scene::gathering();
    let waiting = Command::Announce(RunUpdate::Gathering { present: 1, needed: 2 });
    assert_eq!(scene.happens(joined(1)), [waiting]);
    let lanes = vec![vec![LaneId(0), LaneId(1)], vec![LaneId(2), LaneId(3)]];
    assert_eq!(
        scene.happens(joined(0)),
        [
            Command::Journal(Record::Generation { generation: Generation(9), world: 2 }),
            tell(both(), Order::Form { peers: vec![ring(0), ring(1)], lanes, carried: None }),
        ]
    );
}

#[test]
fn training_begins_when_every_rank_is_ready() {
    let mut scene = Scene::forming();
    assert_eq!(scene.tells(1, WorkerReport::Ready), []);
    assert_eq!(scene.tells(1, WorkerReport::Ready), []);
    let formed = Command::Announce(RunUpdate::Formed { generation: Generation(9), world: 2 });
    assert_eq!(scene.tells(0, WorkerReport::Ready), [formed, tell(both(), Order::Train)]);
}

#[test]
fn only_the_progress_of_rank_0_is_the_runs() {
    let mut scene = Scene::training();
    assert_eq!(scene.tells(1, progress(1)), []);
    let WorkerReport::Progress(first) = progress(1) else { unreachable!() };
    let stage = RunUpdate::Stage { stage: Stage::Train, total: 10, done: 1 };
    let told = [Command::Announce(stage), Command::Announce(RunUpdate::Progress(first))];
    assert_eq!(scene.tells(0, progress(1)), told);
    assert_eq!(scene.tells(0, progress(2)).len(), 1);
}

#[test]
fn messages_of_another_generation_incarnation_run_or_rank_are_dropped() {
    let mut scene = Scene::training();
    let good = identity(0, 9);
    let bad = [
        identity(0, 8),
        identity(0, 10),
        identity(1, 9),
        Identity { incarnation: Incarnation(2), ..good.clone() },
        Identity { run: RunId("other".into()), ..good.clone() },
    ];
    for identity in bad {
        let event = Event::FromWorker { worker: worker(0), identity, report: progress(1) };
        assert_eq!(scene.happens(event), []);
    }
    let stranger = Event::FromWorker { worker: WorkerId("w9.9".into()), identity: good, report: progress(1) };
    assert_eq!(scene.happens(stranger), []);
    assert_eq!(scene.engine.state().stale, 6);
}

#[test]
fn a_checkpoint_is_committed_once_every_rank_has_saved_the_same_step() {
    let mut scene = Scene::training();
    assert_eq!(scene.saves(0, 5), []);
    assert_eq!(scene.saves(1, 6), []);
    let request = |step| CommitRequest {
        incarnation: Incarnation(3),
        generation: Generation(9),
        stage: Stage::Train,
        step: Step(step),
        average_map: None,
        lanes: vec![vec![LaneId(0), LaneId(1)], vec![LaneId(2), LaneId(3)]],
        parts: vec![serde_json::json!({"from": 0}), serde_json::json!({"from": 1})],
    };
    assert_eq!(scene.saves(1, 5), [Command::CommitCheckpoint(request(5))]);
    // The next one waits until this one is in the chain.
    assert_eq!(scene.saves(0, 6), []);
    let newest = Committed { stage: Stage::Train, step: Step(5), sequence: 1 };
    assert_eq!(
        scene.happens(committed(5)),
        [
            Command::Journal(Record::Committed(newest)),
            Command::Announce(RunUpdate::Saved { step: Step(5), sequence: 1 }),
            tell(both(), Order::Committed { stage: Stage::Train, step: Step(5), sequence: 1 }),
            Command::CommitCheckpoint(request(6)),
        ]
    );
    assert_eq!(scene.happens(committed(5)), []);
}

#[test]
fn a_wish_for_a_checkpoint_is_taken_back_once_it_is_fulfilled() {
    let mut scene = Scene::training();
    let wish = |checkpoint| tell(both(), Order::SetFlags(Flags { checkpoint, ..Flags::default() }));
    assert_eq!(scene.happens(Event::CheckpointWanted), [wish(true)]);
    scene.saves(0, 5);
    scene.saves(1, 5);
    assert_eq!(scene.happens(committed(5)).pop(), Some(wish(false)));
}

#[test]
fn a_validation_is_reported_once_every_rank_is_through() {
    let mut scene = Scene::training();
    let done = || WorkerReport::ValidationDone { step: Step(5) };
    assert_eq!(scene.tells(1, done()), []);
    assert_eq!(scene.tells(1, done()), []);
    assert_eq!(scene.tells(0, done()), [Command::ComputeReport { generation: Generation(9), step: Step(5) }]);
    let report = serde_json::json!({});
    let made = Event::ReportMade {
        step: Step(5),
        epoch: Epoch(1),
        average_map: 0.5,
        best: true,
        report: report.clone(),
    };
    let update =
        RunUpdate::Validated { step: Step(5), epoch: Epoch(1), average_map: 0.5, best: true, report };
    let order = Order::Validated { step: Step(5), average_map: 0.5, best: true };
    assert_eq!(scene.happens(made), [Command::Announce(update), tell(both(), order)]);
}

#[test]
fn the_run_is_done_when_every_rank_is() {
    let mut scene = Scene::training();
    let finished = || WorkerReport::Finished { step: Step(10), ending: Ending::Completed };
    assert_eq!(scene.tells(0, finished()), []);
    assert_eq!(scene.tells(1, finished()), [tell(both(), Order::Shutdown)]);
    assert_eq!(scene.happens(exited(0, ExitCause::Code(0))), []);
    assert_eq!(
        scene.happens(exited(1, ExitCause::Code(0))),
        [
            Command::Journal(Record::Ended { outcome: Outcome::Done }),
            Command::Announce(RunUpdate::Finished { outcome: Outcome::Done }),
            Command::Finish(Outcome::Done),
        ]
    );
}

#[test]
fn a_stop_is_a_wish_that_the_ranks_fulfil() {
    let mut scene = Scene::training();
    let wish = tell(both(), Order::SetFlags(Flags { stop: true, ..Flags::default() }));
    assert_eq!(scene.happens(Event::Stop(StopSource::Scheduler)), [wish]);
    // SIGUSR1 and SIGTERM of one scheduler are one wish.
    assert_eq!(scene.happens(Event::Stop(StopSource::Scheduler)), []);
    for rank in 0..2 {
        scene.tells(rank, WorkerReport::Finished { step: Step(4), ending: Ending::Stopped });
    }
    assert_eq!(scene.outcome(), Outcome::Preempted { step: Step(4) });
}

#[test]
fn a_stop_before_training_ends_at_once() {
    let mut scene = Scene::forming();
    assert_eq!(scene.happens(Event::Stop(StopSource::Operator)), [tell(both(), Order::Shutdown)]);
    assert_eq!(scene.outcome(), Outcome::Preempted { step: Step(0) });
}

#[test]
fn a_second_interrupt_kills() {
    let mut scene = Scene::training();
    scene.happens(Event::Stop(StopSource::Interrupt));
    let reason = "killed by a second Ctrl-C".to_owned();
    assert_eq!(
        scene.happens(Event::Stop(StopSource::Interrupt)),
        [tell(both(), Order::Abort { reason }), tell(both(), Order::Shutdown), Command::KillWorkers]
    );
}

#[test]
fn a_lost_worker_ends_the_run_with_its_cause_and_the_newest_checkpoint() {
    let mut scene = Scene::training();
    scene.saves(0, 5);
    scene.saves(1, 5);
    scene.happens(committed(5));
    let reason = "worker 1 (rank 1) was killed by signal 9".to_owned();
    assert_eq!(
        scene.happens(exited(1, ExitCause::Signal(9))),
        [
            tell(vec![worker(0)], Order::Abort { reason: reason.clone() }),
            tell(vec![worker(0)], Order::Shutdown),
        ]
    );
    // What the survivors say about it changes nothing.
    let consequence = WorkerReport::Failed {
        message: "the ring is closed".into(),
        hint: None,
        never_restart: true,
        log: vec![],
        ends_run: false,
    };
    assert_eq!(scene.tells(0, consequence), []);
    let Some(Command::Finish(Outcome::Failed { cause, rank, log, never_restart, resumable_at, .. })) =
        scene.happens(exited(0, ExitCause::Code(1))).pop()
    else {
        panic!("the run has not failed");
    };
    assert_eq!((cause, rank, log), (reason, Some(Rank(1)), vec!["last".to_owned()]));
    assert_eq!((never_restart, resumable_at), (false, Some(Step(5))));
}

#[test]
fn a_commit_in_flight_is_waited_for_and_counts() {
    let mut scene = Scene::training();
    scene.saves(0, 5);
    scene.saves(1, 5);
    scene.happens(exited(0, ExitCause::Signal(9)));
    assert_eq!(scene.happens(exited(1, ExitCause::Code(0))), []);
    let Some(Command::Finish(Outcome::Failed { resumable_at, .. })) = scene.happens(committed(5)).pop()
    else {
        panic!("the run has not failed");
    };
    assert_eq!(resumable_at, Some(Step(5)));
}

#[test]
fn a_run_that_is_through_but_not_saved_has_failed() {
    let mut scene = Scene::training();
    scene.saves(0, 5);
    scene.saves(1, 5);
    for rank in 0..2 {
        scene.tells(rank, WorkerReport::Finished { step: Step(5), ending: Ending::Completed });
        scene.happens(exited(rank, ExitCause::Code(0)));
    }
    let failed = Event::CommitFailed { message: "no space".into(), hint: None };
    let Some(Command::Finish(Outcome::Failed { cause, .. })) = scene.happens(failed).pop() else {
        panic!("the run has not failed");
    };
    assert_eq!(cause, "the checkpoint was not saved: no space");
}

#[test]
fn a_failed_collective_waits_for_the_death_that_caused_it() {
    let lost = || WorkerReport::CollectiveFailed { message: "peer closed".into() };
    let mut scene = Scene::training();
    assert_eq!(scene.tells(0, lost()), []);
    scene.happens(exited(1, ExitCause::Signal(9)));
    assert!(matches!(scene.outcome(), Outcome::Failed { cause, .. } if cause.contains("killed by signal 9")));

    let mut scene = Scene::training();
    scene.tells(0, lost());
    for tick in 1..30 {
        scene.happens(Event::AgentRenewed { agent: agent() });
        scene.at(0.1 + 0.1 * f64::from(tick), Event::Tick);
    }
    assert!(
        matches!(scene.outcome(), Outcome::Failed { cause, .. } if cause == "a collective failed on rank 0: peer closed")
    );
}

#[test]
fn a_silent_agent_loses_its_lease_and_an_overslept_coordinator_judges_nobody() {
    let mut scene = Scene::training();
    scene.at(0.2, Event::Tick);
    // Stopped for an hour and continued: nobody was heard, and nobody is to blame.
    scene.at(3600.0, Event::Tick);
    assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Training);
    for tick in 1..10 {
        scene.at(3600.0 + 0.2 * f64::from(tick), Event::Tick);
    }
    let Phase::Finished { outcome: Outcome::Failed { cause, .. } } = &scene.engine.state().phase else {
        panic!("the run has not failed");
    };
    assert!(cause.starts_with("the agent on `node` was not heard of for 1."), "{cause}");
}

#[test]
fn workers_that_do_not_come_or_do_not_go_are_not_waited_for() {
    let mut scene = Scene::gathering();
    scene.happens(joined(0));
    for second in 1..=61 {
        scene.happens(Event::AgentRenewed { agent: agent() });
        scene.at(f64::from(second) - 0.6, Event::Tick);
        scene.at(f64::from(second), Event::Tick);
    }
    let Phase::Ending { outcome: Outcome::Failed { cause, .. }, .. } = &scene.engine.state().phase else {
        panic!("the run goes on");
    };
    assert_eq!(cause, "only 1 of 2 workers came within 60 s");
    let mut commands = Vec::new();
    for tick in 1..30 {
        scene.happens(Event::AgentRenewed { agent: agent() });
        commands.extend(scene.at(61.0 + 0.2 * f64::from(tick), Event::Tick));
    }
    assert_eq!(commands[0], Command::KillWorkers);
    assert!(matches!(commands.last(), Some(Command::Finish(_))), "{commands:?}");
}

fn any_report() -> impl Strategy<Value = WorkerReport> {
    let saved = (0u64..3).prop_map(|step| {
        let parts = serde_json::json!(step);
        let (stage, step, average_map) = (Stage::Train, Step(step), None);
        WorkerReport::PartsSaved(SavedParts { stage, step, average_map, parts })
    });
    let finished = any::<bool>().prop_map(|stopped| WorkerReport::Finished {
        step: Step(3),
        ending: if stopped { Ending::Stopped } else { Ending::Completed },
    });
    prop_oneof![
        8 => Just(WorkerReport::Ready),
        8 => (0u64..9).prop_map(progress),
        32 => saved,
        8 => (0u64..2).prop_map(|step| WorkerReport::ValidationDone { step: Step(step) }),
        1 => Just(WorkerReport::Warning("w".into())),
        1 => Just(WorkerReport::CollectiveFailed { message: "c".into() }),
        1 => Just(WorkerReport::Failed { message: "f".into(), hint: None, never_restart: false, log: vec![], ends_run: false }),
        1 => finished,
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let agents = prop_oneof![Just(AgentId("a".into())), Just(AgentId("b".into()))];
    let from_worker =
        (0u32..4, 0u32..4, 7u64..11, any_report()).prop_map(|(index, rank, generation, report)| {
            Event::FromWorker { worker: worker(index), identity: identity(rank, generation), report }
        });
    // Mostly true to itself, so that histories get far.
    let honest = (0u32..3, any_report()).prop_map(|(index, report)| Event::FromWorker {
        worker: worker(index),
        identity: identity(index, 9),
        report,
    });
    let died = (0u32..4, prop_oneof![Just(ExitCause::Code(0)), Just(ExitCause::Signal(9))]);
    let sources =
        prop_oneof![Just(StopSource::Interrupt), Just(StopSource::Scheduler), Just(StopSource::Operator)];
    prop_oneof![
        6 => (agents.clone(), 0usize..4).prop_map(|(agent, slots)| Event::AgentConnected {
            agent, host: "n".into(), slots, held: vec![], ended: vec![]
        }),
        12 => agents.clone().prop_map(|agent| Event::AgentRenewed { agent }),
        1 => agents.prop_map(|agent| Event::AgentDisconnected { agent }),
        16 => (0u32..4).prop_map(joined),
        3 => from_worker,
        60 => honest,
        1 => died.prop_map(|(index, cause)| exited(index, cause)),
        1 => (0u32..4).prop_map(|index| Event::StartFailed { worker: worker(index), message: "s".into() }),
        16 => (0u64..3).prop_map(committed),
        1 => Just(Event::CommitFailed { message: "c".into(), hint: None }),
        1 => Just(Event::ReportFailed { message: "r".into() }),
        3 => Just(Event::Tick),
        1 => sources.prop_map(Event::Stop),
        1 => Just(Event::CheckpointWanted),
        1 => Just(Event::Broken { message: "b".into() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// `handle` itself asserts the invariants after every event.
    #[test]
    fn invariants_hold_in_every_history_and_every_run_can_end(
        workers in 1usize..4,
        trains in any::<bool>(),
        events in proptest::collection::vec((0u64..200, any_event()), 0..80),
    ) {
        let mut engine = RunEngine::new(settings(workers), Incarnation(3), Generation(8), Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut commands = Vec::new();
        let members = 0..if trains { workers as u32 } else { 0 };
        let come = Event::AgentConnected { agent: agent(), host: "n".into(), slots: 4, held: vec![], ended: vec![] };
        let ready = |index| {
            let (worker, identity, report) = (worker(index), identity(index, 9), WorkerReport::Ready);
            Event::FromWorker { worker, identity, report }
        };
        for event in [come].into_iter().chain(members.clone().map(joined)).chain(members.map(ready)) {
            commands.extend(engine.handle(now, event));
        }
        for (later, event) in events {
            now += Duration::from_millis(later);
            commands.extend(engine.handle(now, event));
        }
        // Whatever has happened: two interrupts and silence end the run.
        for _ in 0..2 {
            commands.extend(engine.handle(now, Event::Stop(StopSource::Interrupt)));
        }
        for _ in 0..100 {
            now += Duration::from_millis(200);
            commands.extend(engine.handle(now, Event::Tick));
        }
        prop_assert_eq!(engine.state().phase.kind(), PhaseKind::Finished);
        prop_assert_eq!(commands.iter().filter(|command| matches!(command, Command::Finish(_))).count(), 1);

        let mut journaled = Generation(8);
        let mut in_flight = 0usize;
        for command in &commands {
            match command {
                Command::Journal(Record::Generation { generation, .. }) => {
                    prop_assert!(*generation > journaled, "a generation is never reused");
                    journaled = *generation;
                }
                Command::Tell { generation, order: Order::Form { .. }, .. } => {
                    prop_assert_eq!(*generation, journaled, "journaled before it is announced");
                }
                Command::CommitCheckpoint(request) => {
                    in_flight += 1;
                    prop_assert!(in_flight <= 1, "one commit in flight");
                    prop_assert_eq!(request.parts.len(), workers);
                }
                Command::Journal(Record::Committed(_)) => in_flight -= 1,
                _ => {}
            }
        }
    }
}
