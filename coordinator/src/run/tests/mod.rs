//! The engine as a table: in this state, at this event, exactly these commands.

mod adoption;
mod recovery;

use longtake_shared::config::Recovery;
use longtake_shared::ids::{Epoch, LaneId, RunId};
use longtake_shared::protocol::{
    Ending, ExitCause, Flags, Formation, HeldWorker, Kept, Progress, SavedParts, Stage, WorkerEnd,
    WorkerHello, WorkerReport,
};
use longtake_shared::units::Seconds;

use super::command::CommitRequest;
use super::event::ReportMade;
use super::phase::PhaseKind;
use super::record::Record;
use super::*;

const LEASE: Duration = Duration::from_secs(1);

fn settings(workers: usize) -> Settings {
    Settings {
        run: RunId("r".into()),
        workers,
        fewest: workers,
        spares: 0,
        lanes: 4,
        recovery: Recovery::Exact,
        lease: LEASE,
        gather_timeout: Duration::from_mins(1),
        coordinator_grace: Duration::from_secs(20),
        phase_deadline: Duration::from_secs(30),
        stop_grace: Duration::from_secs(15),
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
        Self::gathering_with(settings(2))
    }

    fn gathering_with(settings: Settings) -> Self {
        let engine = RunEngine::new(settings, Incarnation(1), Generation(8), Duration::ZERO);
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
        Self::training_with(settings(2))
    }

    fn training_with(settings: Settings) -> Self {
        let mut scene = Self::gathering_with(settings);
        scene.at(0.1, joined(0));
        scene.at(0.1, joined(1));
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

    /// The same about another generation.
    fn tells_of(&mut self, generation: u64, id: &WorkerId, rank: u32, report: WorkerReport) -> Vec<Command> {
        let identity = identity(rank, generation);
        self.happens(Event::FromWorker { worker: id.clone(), identity, report })
    }

    fn saves(&mut self, rank: u32, step: u64) -> Vec<Command> {
        let saved = SavedParts {
            stage: SavedStage::Train,
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
    membership::worker_id(index as usize, Incarnation(1), index as usize)
}

fn both() -> Vec<WorkerId> {
    vec![worker(0), worker(1)]
}

fn identity(rank: u32, generation: u64) -> Identity {
    Identity {
        run: RunId("r".into()),
        incarnation: Incarnation(1),
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

fn worker_hello(index: u32) -> WorkerHello {
    WorkerHello { index, pid: 100 + index, ring_address: ring(index) }
}

fn exited(index: u32, cause: ExitCause) -> Event {
    Event::WorkerExited(WorkerEnd { worker: worker(index), cause, log: vec!["last".into()], last: None })
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
    Event::Committed { stage: SavedStage::Train, step: Step(step), sequence: 1 }
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
    let (generation, incarnation) = (Generation(9), Incarnation(1));
    let team = Team { generation, incarnation, members: both(), lanes: lanes.clone() };
    assert_eq!(
        scene.happens(joined(0)),
        [
            Command::Journal(Record::Generation { team, indices: vec![0, 1] }),
            tell(both(), Order::Form(Formation { peers: vec![ring(0), ring(1)], lanes, carried: None })),
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
        Identity { incarnation: Incarnation(0), ..good.clone() },
        Identity { run: RunId("other".into()), ..good.clone() },
    ];
    for identity in bad {
        let event = Event::FromWorker { worker: worker(0), identity, report: progress(1) };
        assert_eq!(scene.happens(event), []);
    }
    let stranger = Event::FromWorker { worker: WorkerId("w9.9".into()), identity: good, report: progress(1) };
    assert_eq!(scene.happens(stranger), []);
    assert_eq!(scene.engine.state().counters.stale, 6);
}

#[test]
fn a_checkpoint_is_committed_once_every_rank_has_saved_the_same_step() {
    let mut scene = Scene::training();
    assert_eq!(scene.saves(0, 5), []);
    assert_eq!(scene.saves(1, 6), []);
    let request = |step| CommitRequest {
        incarnation: Incarnation(1),
        generation: Generation(9),
        stage: SavedStage::Train,
        step: Step(step),
        average_map: None,
        lanes: vec![vec![LaneId(0), LaneId(1)], vec![LaneId(2), LaneId(3)]],
        parts: vec![serde_json::json!({"from": 0}), serde_json::json!({"from": 1})],
    };
    assert_eq!(scene.saves(1, 5), [Command::CommitCheckpoint(request(5))]);
    // The next one waits until this one is in the chain.
    assert_eq!(scene.saves(0, 6), []);
    let newest = Committed { stage: SavedStage::Train, step: Step(5), sequence: 1 };
    assert_eq!(
        scene.happens(committed(5)),
        [
            Command::Journal(Record::Committed(newest)),
            Command::Announce(RunUpdate::Saved { step: Step(5), sequence: 1 }),
            tell(both(), Order::Committed { stage: SavedStage::Train, step: Step(5), sequence: 1 }),
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
    let made = Event::ReportMade(ReportMade {
        step: Step(5),
        epoch: Epoch(1),
        average_map: 0.5,
        best: true,
        report: report.clone(),
    });
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
fn videos_that_ranks_share_are_counted_together() {
    let mut scene = Scene::training();
    let mut shown = |rank, stage, done| -> Vec<(Stage, u64)> {
        let WorkerReport::Progress(progress) = progress(done) else { unreachable!() };
        let commands = scene.tells(rank, WorkerReport::Progress(Progress { stage, ..progress }));
        let done = |command: Command| match command {
            Command::Announce(RunUpdate::Progress(progress)) => Some((progress.stage, progress.done)),
            _ => None,
        };
        commands.into_iter().filter_map(done).collect()
    };
    let validated = |done| vec![(Stage::Validate, done)];
    for _ in 0..2 {
        assert_eq!(shown(1, Stage::Validate, 0), [], "the stage begins with rank 0");
        assert_eq!(
            shown(0, Stage::Validate, 0),
            validated(0),
            "what others did in the last validation is over"
        );
        assert_eq!(shown(1, Stage::Validate, 2), validated(2));
        assert_eq!(shown(0, Stage::Validate, 3), validated(5));
        assert_eq!(shown(1, Stage::Validate, 7), validated(10));
        assert_eq!(shown(1, Stage::Train, 4), [], "a step is taken by all, and rank 0 tells of it");
        assert_eq!(shown(0, Stage::Train, 4), [(Stage::Train, 4)]);
    }
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
fn workers_that_do_not_come_or_do_not_go_are_not_waited_for() {
    let mut scene = Scene::gathering();
    scene.happens(joined(0));
    for tick in 1..=305 {
        scene.happens(Event::AgentRenewed { agent: agent(), doing: vec![] });
        scene.at(0.2 * f64::from(tick), Event::Tick);
    }
    let Phase::Ending { outcome: Outcome::Failed { cause, .. }, .. } = &scene.engine.state().phase else {
        panic!("the run goes on");
    };
    assert_eq!(cause, "only 1 of 2 workers connected within 60 s");
    let mut commands = Vec::new();
    for tick in 1..30 {
        scene.happens(Event::AgentRenewed { agent: agent(), doing: vec![] });
        commands.extend(scene.at(61.0 + 0.2 * f64::from(tick), Event::Tick));
    }
    assert_eq!(commands[0], Command::KillWorkers);
    assert!(matches!(commands.last(), Some(Command::Finish(_))), "{commands:?}");
}
