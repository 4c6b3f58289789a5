//! What the engine does about losses: of workers, agents, itself.

use longtake_shared::protocol::stamp::StepPhase;
use longtake_shared::protocol::{Carried, Doing, FailureScope, LaneMove};

use super::*;
use crate::run::quorum::Quorum;
use crate::updates::Nearness;

/// The process of that index that was started as the run's `number`th, from 0.
fn started(index: usize, number: usize) -> WorkerId {
    membership::worker_id(index, Incarnation(1), number)
}

/// The process that is started in the place of worker 1.
fn replacement() -> WorkerId {
    started(1, 2)
}

fn start_replacement() -> Command {
    Command::StartWorker { agent: agent(), worker: replacement(), index: 1 }
}

fn left(step: u64, lanes: &[u32]) -> WorkerReport {
    let lanes = lanes.iter().copied().map(LaneId).collect();
    let kept = Kept { stage: SavedStage::Train, step: Step(step), lanes, copies: vec![] };
    WorkerReport::Left { kept: Some(kept) }
}

/// Members, lanes, and what is carried over.
type Formed = (Vec<WorkerId>, Vec<Vec<LaneId>>, Option<Carried>);

fn form(commands: &[Command]) -> Option<Formed> {
    commands.iter().find_map(|command| match command {
        Command::Tell { workers, order: Order::Form(Formation { lanes, carried, .. }), .. } => {
            Some((workers.clone(), lanes.clone(), carried.clone()))
        }
        _ => None,
    })
}

fn fast(fewest: usize) -> Settings {
    Settings { fewest, recovery: Recovery::Fast, ..settings(2) }
}

/// Worker 1 is killed, and worker 0 has left its generation.
fn after_a_loss(settings: Settings) -> (Scene, Vec<Command>) {
    let mut scene = Scene::training_with(settings);
    scene.tells(0, progress(7));
    scene.happens(exited(1, ExitCause::Signal(9)));
    let commands = scene.tells(0, left(7, &[0, 1]));
    (scene, commands)
}

#[test]
fn a_lost_worker_is_told_to_the_survivors_and_started_again() {
    let mut scene = Scene::training();
    let reason = "worker 1 (rank 1) was killed by signal 9".to_owned();
    assert_eq!(
        scene.happens(exited(1, ExitCause::Signal(9))),
        [tell(vec![worker(0)], Order::Abort { reason }), start_replacement()]
    );
    assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Recovering);
}

#[test]
fn in_mode_exact_all_return_to_the_checkpoint_with_the_same_lanes() {
    let (mut scene, commands) = after_a_loss(settings(2));
    assert_eq!(form(&commands), None, "the run waits for its second worker");
    let join = Event::WorkerJoined { worker: replacement(), ring_address: ring(7), pid: 7 };
    let commands = scene.happens(join);
    let lanes = vec![vec![LaneId(0), LaneId(1)], vec![LaneId(2), LaneId(3)]];
    assert_eq!(form(&commands), Some((vec![worker(0), replacement()], lanes, None)));
    let told = commands.iter().find_map(|command| match command {
        Command::Announce(RunUpdate::Recovered { incident: Some(incident), generation, world, .. }) => {
            Some((incident.cause.clone(), incident.rank, *generation, *world))
        }
        _ => None,
    });
    let cause = "worker 1 (rank 1) was killed by signal 9".to_owned();
    assert_eq!(told, Some((cause, Some(Rank(1)), Generation(10), 2)));
}

#[test]
fn no_generation_forms_while_a_checkpoint_is_on_its_way_and_the_next_begins_there() {
    let mut scene = Scene::training();
    scene.saves(0, 5);
    assert!(matches!(scene.saves(1, 5).as_slice(), [Command::CommitCheckpoint(_)]));
    scene.happens(exited(1, ExitCause::Signal(9)));
    scene.tells(0, left(7, &[0, 1]));
    let join = Event::WorkerJoined { worker: replacement(), ring_address: ring(7), pid: 7 };
    assert_eq!(form(&scene.happens(join)), None);
    assert_eq!(scene.engine.quorum(scene.now), Some(Quorum::Saving));

    let commands = scene.happens(committed(5));
    assert!(form(&commands).is_some(), "{commands:?}");
    let goes_on = commands.iter().find_map(|command| match command {
        Command::Announce(RunUpdate::Recovered { goes_on_at, .. }) => Some(*goes_on_at),
        _ => None,
    });
    assert_eq!(goes_on, Some(Step(5)));
}

#[test]
fn in_mode_fast_the_survivors_go_on_at_once_and_the_replacement_joins_at_a_boundary() {
    let (mut scene, commands) = after_a_loss(fast(1));
    let (members, lanes, carried) = form(&commands).expect("one worker is enough");
    assert_eq!(members, [worker(0)]);
    assert_eq!(lanes, [[LaneId(0), LaneId(1), LaneId(2), LaneId(3)]]);
    let (stage, step, holder) = (SavedStage::Train, Step(7), Rank(0));
    assert_eq!(carried, Some(Carried { stage, step, holder, behind: vec![], moves: vec![] }));

    scene.tells_of(10, &worker(0), 0, WorkerReport::Ready);
    let join = Event::WorkerJoined { worker: replacement(), ring_address: ring(7), pid: 7 };
    let wish = Order::SetFlags(Flags { reconfigure: true, ..Flags::default() });
    let asked = Command::Tell { generation: Generation(10), workers: vec![worker(0)], order: wish };
    assert_eq!(scene.happens(join), [asked]);

    let commands = scene.tells_of(10, &worker(0), 0, left(9, &[0, 1, 2, 3]));
    let (members, lanes, carried) = form(&commands).expect("both are there");
    assert_eq!(members, [worker(0), replacement()]);
    assert_eq!(lanes.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    let carried = carried.expect("nothing is lost");
    assert_eq!((carried.step, carried.behind), (Step(9), vec![Rank(1)]));
    let moves: Vec<LaneMove> =
        lanes[1].iter().map(|lane| LaneMove { lane: *lane, from: Rank(0), copy: false }).collect();
    assert_eq!(carried.moves, moves);
}

#[test]
fn a_change_that_all_agreed_on_carries_everything_in_mode_exact_too() {
    let mut scene = Scene::training_with(Settings { fewest: 1, ..settings(2) });
    scene.happens(exited(1, ExitCause::Signal(9)));
    scene.tells(0, left(7, &[0, 1]));
    scene.tells_of(10, &worker(0), 0, WorkerReport::Ready);
    scene.happens(Event::WorkerJoined { worker: replacement(), ring_address: ring(7), pid: 7 });
    let commands = scene.tells_of(10, &worker(0), 0, left(9, &[0, 1, 2, 3]));
    assert!(form(&commands).unwrap().2.is_some());
}

#[test]
fn a_spare_takes_the_place_at_once() {
    let mut scene = Scene::gathering_with(Settings { spares: 1, ..settings(2) });
    scene.happens(Event::AgentConnected {
        agent: AgentId("b".into()),
        host: "other".into(),
        slots: 1,
        held: vec![],
        ended: vec![],
    });
    for index in 0..3 {
        scene.happens(joined(index));
    }
    scene.tells(0, WorkerReport::Ready);
    scene.tells(1, WorkerReport::Ready);
    assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Training);
    scene.happens(exited(1, ExitCause::Signal(9)));
    let commands = scene.tells(0, left(0, &[]));
    assert_eq!(form(&commands).unwrap().0, [worker(0), worker(2)]);
}

#[test]
fn the_death_behind_a_failed_collective_is_the_cause() {
    let mut scene = Scene::training();
    let lost = WorkerReport::CollectiveFailed { message: "peer closed".into() };
    let reason = "a collective failed on rank 0: peer closed".to_owned();
    assert_eq!(scene.tells(0, lost), [tell(both(), Order::Abort { reason })]);
    scene.happens(exited(1, ExitCause::Signal(9)));
    let Phase::Recovering { incident: Some(incident), waiting, .. } = &scene.engine.state().phase else {
        panic!("the run recovers");
    };
    assert_eq!((incident.nearness, incident.rank), (Nearness::Cause, Some(Rank(1))));
    assert_eq!(waiting.iter().collect::<Vec<_>>(), [&worker(0)]);
}

#[test]
fn a_hanging_worker_is_killed_and_lost_with_what_it_did() {
    let mut scene = Scene::training();
    let doing = Doing { step: Step(4), phase: StepPhase::Data, since: Seconds(12.4) };
    let hung = Event::WorkerHung { worker: worker(1), doing, deadline: Seconds(2.0), log: vec!["l".into()] };
    let commands = scene.happens(hung.clone());
    assert_eq!(commands[0], Command::KillWorker { agent: agent(), worker: worker(1) });
    let reason =
        "worker 1 (rank 1) hung: at most 2.0 s were expected, in data of step 4 for 12.4 s".to_owned();
    assert_eq!(commands[1], tell(vec![worker(0)], Order::Abort { reason }));
    assert_eq!(scene.happens(hung), []);
    assert_eq!(scene.happens(exited(1, ExitCause::Signal(9))), []);
}

#[test]
fn a_member_that_does_not_leave_is_lost_too() {
    let mut scene = Scene::training();
    scene.happens(exited(1, ExitCause::Signal(9)));
    let mut commands = Vec::new();
    for tick in 1..60 {
        scene.happens(Event::AgentRenewed { agent: agent(), doing: vec![] });
        commands.extend(scene.at(0.1 + 0.2 * f64::from(tick), Event::Tick));
    }
    assert!(commands.contains(&Command::KillWorker { agent: agent(), worker: worker(0) }), "{commands:?}");
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
    let Phase::Recovering { incident: Some(incident), .. } = &scene.engine.state().phase else {
        panic!("the run goes on: {:?}", scene.engine.state().phase);
    };
    assert!(incident.cause.starts_with("the agent on `node` was not heard of for 1."), "{incident}");
}

#[test]
fn an_agent_whose_link_broke_has_half_a_lease_to_come_back() {
    let mut scene = Scene::training();
    scene.at(0.2, Event::Tick);
    scene.happens(Event::AgentDisconnected { agent: agent() });
    scene.at(0.6, Event::Tick);
    let held = |index: u32| HeldWorker { worker: worker(index), index, hello: Some(worker_hello(index)) };
    let back = Event::AgentConnected {
        agent: agent(),
        host: "node".into(),
        slots: 2,
        held: vec![held(0), held(1)],
        ended: vec![],
    };
    let adopted = |index| tell(vec![worker(index)], Order::Adopted);
    assert_eq!(scene.happens(back), [adopted(0), adopted(1)]);
    scene.happens(Event::AgentDisconnected { agent: agent() });
    for tick in 0..5 {
        scene.at(0.8 + 0.2 * f64::from(tick), Event::Tick);
    }
    assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Recovering);
}

#[test]
fn no_disjoint_generation_forms_while_the_last_may_train_out_of_sight() {
    let mut scene = Scene::training();
    scene.at(0.2, Event::Tick);
    scene.happens(Event::AgentDisconnected { agent: agent() });
    let other = AgentId("b".into());
    let come = Event::AgentConnected {
        agent: other.clone(),
        host: "other".into(),
        slots: 2,
        held: vec![],
        ended: vec![],
    };
    scene.happens(come);
    let mut formed_at = None;
    for tick in 1..200 {
        let now = 0.2 + 0.2 * f64::from(tick);
        scene.happens(Event::AgentRenewed { agent: other.clone(), doing: vec![] });
        let mut commands = scene.at(now, Event::Tick);
        let started: Vec<WorkerId> = commands
            .iter()
            .filter_map(|command| match command {
                Command::StartWorker { worker, .. } => Some(worker.clone()),
                _ => None,
            })
            .collect();
        for worker in started {
            commands.extend(scene.happens(Event::WorkerJoined { worker, ring_address: ring(9), pid: 9 }));
        }
        if form(&commands).is_some() {
            formed_at.get_or_insert(now);
        }
    }
    let formed_at = formed_at.expect("it forms in the end");
    assert!((20.5..22.0).contains(&formed_at), "{formed_at}");
}

/// A run whose third generation trains, after two that came to nothing.
fn in_the_last_generation() -> Scene {
    let mut scene = Scene::training_with(fast(1));
    for generation in [9, 10] {
        scene.tells_of(generation, &worker(0), 0, broken());
        for rank in 0..2 {
            scene.tells_of(generation, &worker(rank), rank, WorkerReport::Left { kept: None });
        }
        for rank in 0..2 {
            scene.tells_of(generation + 1, &worker(rank), rank, WorkerReport::Ready);
        }
    }
    assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Training);
    scene
}

fn broken() -> WorkerReport {
    WorkerReport::CollectiveFailed { message: "peer closed".into() }
}

#[test]
fn three_generations_without_progress_end_the_run_for_good() {
    let mut scene = in_the_last_generation();
    scene.tells_of(11, &worker(0), 0, broken());
    for rank in 0..2 {
        assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Recovering, "a nearer cause may come");
        scene.tells_of(11, &worker(rank), rank, WorkerReport::Left { kept: None });
    }
    let Outcome::Failed { never_restart: true, cause, .. } = scene.outcome() else {
        panic!("it may restart")
    };
    let expected = "3 generations in a row made no progress; \
                    the last one ended because a collective failed on rank 0: peer closed";
    assert_eq!(cause, expected);
}

#[test]
fn the_death_that_is_seen_after_its_consequence_is_the_outcome_of_the_last_generation_too() {
    let mut scene = in_the_last_generation();
    scene.tells_of(11, &worker(0), 0, broken());
    scene.tells_of(11, &worker(0), 0, WorkerReport::Left { kept: None });
    let (step, phase, since) = (Step(4), StepPhase::Data, Seconds(0.5));
    let killed = WorkerEnd {
        worker: worker(1),
        cause: ExitCause::Signal(9),
        log: vec!["the last line".into()],
        last: Some(Doing { step, phase, since }),
    };
    let commands = scene.happens(Event::WorkerExited(killed));
    assert!(!commands.iter().any(|command| matches!(command, Command::StartWorker { .. })), "{commands:?}");
    let Outcome::Failed { cause, rank, log, never_restart: true, .. } = scene.outcome() else {
        panic!("it may restart");
    };
    let expected = "3 generations in a row made no progress; the last one ended because \
                    worker 1 (rank 1) was killed by signal 9, in data of step 4 for 0.5 s";
    assert_eq!((cause.as_str(), rank), (expected, Some(Rank(1))));
    assert_eq!(log, ["the last line"]);
}

#[test]
fn the_last_generation_is_not_waited_for_longer_than_others_nor_by_whoever_stops_the_run() {
    let mut scene = in_the_last_generation();
    scene.tells_of(11, &worker(0), 0, broken());
    let mut stopped = Scene { engine: scene.engine.clone(), now: scene.now };
    stopped.happens(Event::Stop(StopSource::Scheduler));
    let patient = scene.now.as_secs_f64();
    for tick in 1..=51 {
        assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Recovering);
        scene.happens(Event::AgentRenewed { agent: agent(), doing: vec![] });
        scene.at(patient + 0.2 * f64::from(tick), Event::Tick);
    }
    for mut scene in [scene, stopped] {
        let outcome = scene.outcome();
        assert!(matches!(outcome, Outcome::Failed { never_restart: true, .. }), "{outcome:?}");
    }
}

#[test]
fn with_too_few_workers_the_run_says_every_ten_seconds_who_is_missing() {
    let (mut scene, _) = after_a_loss(settings(2));
    let mut told = Vec::new();
    for tick in 1..150 {
        scene.happens(Event::AgentRenewed { agent: agent(), doing: vec![] });
        for command in scene.at(0.2 + 0.2 * f64::from(tick), Event::Tick) {
            if let Command::Announce(RunUpdate::Waiting { present, needed, missing }) = command {
                told.push((present, needed, missing));
            }
        }
    }
    assert_eq!(told, [(1, 2, vec![1]), (1, 2, vec![1])]);
}

#[test]
fn a_stop_that_cannot_be_saved_in_time_leaves_at_the_newest_checkpoint() {
    let mut scene = Scene::training();
    scene.saves(0, 5);
    scene.saves(1, 5);
    scene.happens(committed(5));
    scene.happens(Event::Stop(StopSource::Scheduler));
    for tick in 1..85 {
        scene.happens(Event::AgentRenewed { agent: agent(), doing: vec![] });
        scene.at(0.1 + 0.2 * f64::from(tick), Event::Tick);
    }
    assert_eq!(scene.outcome(), Outcome::Preempted { step: Step(5) });
}

#[test]
fn a_failure_that_any_worker_would_meet_ends_the_run() {
    let mut scene = Scene::training();
    let full = WorkerReport::Failed {
        message: "no space is left".into(),
        hint: None,
        scope: FailureScope::Run,
        log: vec![],
    };
    let reason = "no space is left".to_owned();
    assert_eq!(scene.tells(1, full), [tell(both(), Order::Abort { reason }), tell(both(), Order::Shutdown)]);
}

#[test]
fn a_worker_whose_place_is_taken_is_killed_when_its_agent_is_heard_of_again() {
    let mut scene = Scene::training();
    for tick in 1..8 {
        scene.at(0.1 + 0.2 * f64::from(tick), Event::Tick);
    }
    assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Recovering, "the lease is over");
    let other = AgentId("b".into());
    let commands = scene.happens(Event::AgentConnected {
        agent: other,
        host: "n".into(),
        slots: 2,
        held: vec![],
        ended: vec![],
    });
    let starts = commands.iter().filter(|command| matches!(command, Command::StartWorker { .. }));
    assert_eq!(starts.count(), 2, "both places are taken again");
    // What had piled up in its link comes first: most agents then say hello, and what they hold.
    assert_eq!(scene.happens(Event::AgentRenewed { agent: agent(), doing: vec![] }), []);
    let later = scene.now.as_secs_f64() + 1.1;
    let commands = scene.at(later, Event::AgentRenewed { agent: agent(), doing: vec![] });
    for index in [0, 1] {
        let kill = Command::KillWorker { agent: agent(), worker: worker(index) };
        assert!(commands.contains(&kill), "{commands:?}");
    }
}

#[test]
fn a_checkpoint_that_a_worker_cannot_read_is_replaced_by_one_that_is_whole() {
    let mut scene = Scene::training();
    for step in [5, 6] {
        scene.saves(0, step);
        scene.saves(1, step);
        scene.happens(committed(step));
    }
    scene.happens(exited(1, ExitCause::Signal(9)));
    scene.tells(0, WorkerReport::Left { kept: None });
    scene.happens(Event::WorkerJoined { worker: replacement(), ring_address: ring(1), pid: 9 });
    assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Forming);
    assert_eq!(scene.engine.state().generation, Generation(10));
    // Both find the same damage; it is looked for once.
    let unreadable = || WorkerReport::Failed {
        message: "the checkpoint of step 6 cannot be used".into(),
        hint: None,
        scope: FailureScope::Checkpoint,
        log: vec![],
    };
    assert!(scene.tells_of(10, &worker(0), 0, unreadable()).contains(&Command::FindCheckpoint));
    assert!(!scene.tells_of(10, &replacement(), 1, unreadable()).contains(&Command::FindCheckpoint));
    for (index, number) in [(0, 3), (1, 4)] {
        let worker = started(index, number);
        scene.happens(Event::WorkerJoined { worker, ring_address: ring(index as u32), pid: 9 });
    }
    assert_eq!(scene.engine.quorum(scene.now), Some(Quorum::Searching));
    let found = Event::CheckpointFound {
        found: Some((SavedStage::Train, Step(5))),
        passed_over: vec!["`parts/ab` is missing".into()],
    };
    let commands = scene.happens(found);
    let message = "`parts/ab` is missing: the checkpoint that needs it is passed over".to_owned();
    assert!(commands.contains(&Command::Announce(RunUpdate::Warning { message })), "{commands:?}");
    let goes_on_at = commands.iter().find_map(|command| match command {
        Command::Announce(RunUpdate::Recovered { goes_on_at, .. }) => Some(*goes_on_at),
        _ => None,
    });
    assert_eq!(goes_on_at, Some(Step(5)));
    assert_eq!(scene.engine.state().generation, Generation(11));
}

#[test]
fn checkpoints_that_cannot_be_read_at_all_end_the_run_and_a_later_start_may_do_better() {
    let mut scene = Scene::forming();
    scene.tells(
        0,
        WorkerReport::Failed {
            message: "no answer".into(),
            hint: None,
            scope: FailureScope::Checkpoint,
            log: vec![],
        },
    );
    let message = "could not read `commits/1` in 5 attempts".to_owned();
    scene.happens(Event::CheckpointsUnreadable { message: message.clone(), hint: None });
    let Phase::Ending { outcome: Outcome::Failed { cause, never_restart, .. }, .. } =
        &scene.engine.state().phase
    else {
        panic!("{:?}", scene.engine.state().phase)
    };
    assert_eq!((cause, *never_restart), (&message, false));
}
