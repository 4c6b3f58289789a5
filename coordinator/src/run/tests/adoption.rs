//! What the engine does about its own loss: a coordinator that comes back looks for the generation that may have gone on.

use super::*;

/// A coordinator that comes back, to two agents with a worker each.
fn adopting() -> Scene {
    let team = Team {
        generation: Generation(9),
        incarnation: Incarnation(1),
        members: both(),
        lanes: vec![vec![LaneId(0), LaneId(1)], vec![LaneId(2), LaneId(3)]],
    };
    let orphan = Orphan { team, indices: vec![0, 1] };
    let engine = RunEngine::adopting(settings(2), Incarnation(2), orphan, Duration::ZERO);
    Scene { engine, now: Duration::ZERO }
}

fn back(index: u32) -> Event {
    let held = HeldWorker { worker: worker(index), index, hello: Some(worker_hello(index)) };
    Event::AgentConnected {
        agent: AgentId(format!("a{index}")),
        host: "n".into(),
        slots: 1,
        held: vec![held],
        ended: vec![],
    }
}

#[test]
fn a_coordinator_that_comes_back_takes_over_the_generation_without_a_word_to_its_steps() {
    let mut scene = adopting();
    assert_eq!(scene.happens(back(0)), [tell(vec![worker(0)], Order::Adopted)]);
    assert_eq!(scene.tells(0, WorkerReport::Ready), []);
    scene.happens(back(1));
    let commands = scene.tells(1, WorkerReport::Ready);
    assert!(commands.contains(&tell(both(), Order::Train)), "{commands:?}");
    assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Training);
    assert_eq!(scene.engine.state().generation, Generation(9));
}

#[test]
fn who_does_not_come_back_to_a_new_coordinator_is_lost() {
    let mut scene = adopting();
    scene.happens(back(0));
    let mut commands = Vec::new();
    for tick in 1..15 {
        scene.happens(Event::AgentRenewed { agent: AgentId("a0".into()), doing: vec![] });
        commands.extend(scene.at(0.2 * f64::from(tick), Event::Tick));
    }
    let reason = "worker 1 (rank 1) did not reconnect".to_owned();
    assert!(commands.contains(&tell(vec![worker(0)], Order::Abort { reason })), "{commands:?}");
    // Whoever comes later is a zombie.
    let kill = Command::KillWorker { agent: AgentId("a1".into()), worker: worker(1) };
    assert!(scene.happens(back(1)).contains(&kill));
}

#[test]
fn a_member_that_is_back_but_has_missed_its_form_holds_nobody_up() {
    let mut scene = adopting();
    scene.happens(back(0));
    scene.happens(back(1));
    scene.tells(0, WorkerReport::Ready);
    for tick in 1..15 {
        for agent in ["a0", "a1"] {
            scene.happens(Event::AgentRenewed { agent: AgentId(agent.into()), doing: vec![] });
        }
        scene.at(0.2 * f64::from(tick), Event::Tick);
    }
    let Phase::Recovering { waiting, .. } = &scene.engine.state().phase else {
        panic!("the run waits: {:?}", scene.engine.state().phase);
    };
    assert_eq!(waiting.len(), 2);
}

#[test]
fn a_coordinator_that_finds_nobody_waits_before_it_begins_anew() {
    let mut scene = adopting();
    scene.at(
        0.1,
        Event::AgentConnected { agent: agent(), host: "n".into(), slots: 2, held: vec![], ended: vec![] },
    );
    let mut begun_at = None;
    for tick in 1..150 {
        scene.happens(Event::AgentRenewed { agent: agent(), doing: vec![] });
        let now = 0.1 + 0.2 * f64::from(tick);
        let commands = scene.at(now, Event::Tick);
        if commands.iter().any(|command| matches!(command, Command::StartWorker { .. })) {
            begun_at.get_or_insert(now);
        }
    }
    assert!((20.0..21.0).contains(&begun_at.unwrap()), "{begun_at:?}");
}

/// Ticks for so many seconds; gives everything that was announced of who is missing.
fn notices(scene: &mut Scene, seconds: u32) -> Vec<(usize, usize, Vec<usize>)> {
    let (begun, mut told) = (scene.now.as_secs_f64(), Vec::new());
    for tick in 1..=5 * seconds {
        scene.happens(Event::AgentRenewed { agent: agent(), doing: vec![] });
        for command in scene.at(begun + 0.2 * f64::from(tick), Event::Tick) {
            if let Command::Announce(RunUpdate::Waiting { present, needed, missing }) = command {
                told.push((present, needed, missing));
            }
        }
    }
    told
}

#[test]
fn a_run_that_had_trained_waits_for_an_agent_as_long_as_it_takes_and_says_so_every_ten_seconds() {
    let mut scene = adopting();
    // Five times the time after which a run that nobody ever came to ends.
    let told = notices(&mut scene, 300);
    assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Gathering);
    assert!((28..=30).contains(&told.len()), "{} notices", told.len());
    assert!(told.iter().all(|notice| *notice == (0, 2, vec![0, 1])), "{told:?}");
    let commands = scene.happens(Event::AgentConnected {
        agent: agent(),
        host: "n".into(),
        slots: 2,
        held: vec![],
        ended: vec![],
    });
    assert_eq!(commands.iter().filter(|command| matches!(command, Command::StartWorker { .. })).count(), 2);
}

#[test]
fn a_resumed_run_waits_too_and_replaces_a_process_that_does_not_connect() {
    let resumed = Settings { started_from: Some((SavedStage::Train, Step(5))), ..settings(2) };
    let mut scene = Scene::gathering_with(resumed);
    scene.happens(joined(0));
    let told = notices(&mut scene, 59);
    assert_eq!(told, vec![(1, 2, vec![1]); 5]);
    let mut commands = Vec::new();
    for tick in 1..=10 {
        scene.happens(Event::AgentRenewed { agent: agent(), doing: vec![] });
        commands.extend(scene.at(59.0 + 0.2 * f64::from(tick), Event::Tick));
    }
    assert!(commands.contains(&Command::KillWorker { agent: agent(), worker: worker(1) }), "{commands:?}");
    let replacement = membership::worker_id(1, Incarnation(1), 2);
    let start = Command::StartWorker { agent: agent(), worker: replacement, index: 1 };
    assert!(commands.contains(&start), "{commands:?}");
    assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Gathering);
}

#[test]
fn a_coordinator_whose_clock_leaps_gives_an_unseen_generation_all_of_its_time() {
    let mut scene = adopting();
    scene.at(
        0.1,
        Event::AgentConnected { agent: agent(), host: "n".into(), slots: 2, held: vec![], ended: vec![] },
    );
    scene.at(0.2, Event::Tick);
    // Nineteen seconds pass by its clock only, and the first it hears afterwards is no tick.
    scene.at(19.2, Event::CheckpointWanted);
    let mut begun_at = None;
    for tick in 1..150 {
        scene.happens(Event::AgentRenewed { agent: agent(), doing: vec![] });
        let now = 19.2 + 0.2 * f64::from(tick);
        let commands = scene.at(now, Event::Tick);
        if commands.iter().any(|command| matches!(command, Command::StartWorker { .. })) {
            begun_at.get_or_insert(now);
        }
    }
    assert!((39.0..40.0).contains(&begun_at.unwrap()), "{begun_at:?}");
}

/// Two agents with a worker each train, and for longer than their leases the coordinator hears of neither.
fn cut_off() -> Scene {
    let mut scene = adopting();
    for index in [0, 1] {
        scene.happens(back(index));
        scene.tells(index, WorkerReport::Ready);
    }
    assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Training);
    for tick in 1..8 {
        scene.at(0.2 * f64::from(tick), Event::Tick);
    }
    assert_eq!(scene.engine.state().phase.kind(), PhaseKind::Recovering, "their leases are over");
    scene
}

#[test]
fn a_coordinator_that_was_cut_off_from_all_finds_their_generation_again() {
    let mut scene = cut_off();
    let commands = scene.at(5.0, back(1));
    assert!(commands.contains(&tell(vec![worker(1)], Order::Adopted)), "{commands:?}");
    assert!(!commands.iter().any(|command| matches!(command, Command::KillWorker { .. })), "{commands:?}");
    // The other one is given some time from now on, not from when it was lost.
    scene.at(5.2, Event::Tick);
    scene.at(5.8, back(0));
    scene.tells(0, WorkerReport::Ready);
    let commands = scene.tells(1, WorkerReport::Ready);
    assert!(commands.contains(&tell(both(), Order::Train)), "{commands:?}");
    assert_eq!(scene.engine.state().generation, Generation(9));
}

#[test]
fn a_generation_that_comes_into_sight_without_a_member_goes_on_without_it() {
    let mut scene = cut_off();
    scene.at(5.0, back(1));
    for tick in 1..12 {
        scene.happens(Event::AgentRenewed { agent: AgentId("a1".into()), doing: vec![] });
        scene.at(5.0 + 0.2 * f64::from(tick), Event::Tick);
    }
    let Phase::Recovering { waiting, .. } = &scene.engine.state().phase else {
        panic!("a member is lost: {:?}", scene.engine.state().phase);
    };
    assert_eq!(waiting.iter().collect::<Vec<_>>(), [&worker(1)]);
}

#[test]
fn a_generation_whose_member_is_dead_for_sure_is_not_found_again() {
    let mut scene = cut_off();
    let end =
        |index| WorkerEnd { worker: worker(index), cause: ExitCause::Signal(9), log: vec![], last: None };
    let gone = Event::AgentConnected {
        agent: AgentId("a0".into()),
        host: "n".into(),
        slots: 1,
        held: vec![],
        ended: vec![end(0)],
    };
    scene.at(5.0, gone);
    let kill = Command::KillWorker { agent: AgentId("a1".into()), worker: worker(1) };
    assert!(scene.at(5.2, back(1)).contains(&kill));
}
