//! Workers that hang, and those that only seem to.

use super::*;

fn finished(phase: StepPhase, took: f64) -> FlightRecord {
    FlightRecord { took: Some(s(took)), ..record(1, phase, s(0.0)) }
}

/// A worker that gives a sign of life now, in a phase since then.
fn lives_in(scene: &Scene, phase: StepPhase, since: Duration, finished: Vec<FlightRecord>) -> Reading {
    Reading { alive: Some(scene.now), current: Some(record(1, phase, since)), finished }
}

/// Ticks for a while with a worker that lives and does one thing; gives the hangs with when they were told.
fn watched(scene: &mut Scene, phase: StepPhase, took: &[f64], seconds: f64) -> Vec<(StepPhase, f64, f64)> {
    let began = scene.now;
    let mut first = Some(took.iter().map(|took| finished(phase, *took)).collect());
    let mut hangs = Vec::new();
    while scene.now < began + s(seconds) {
        let reading = lives_in(scene, phase, began, first.take().unwrap_or_default());
        let outputs = scene.lives(0.2, Some(reading));
        hangs.extend(hung(&outputs).into_iter().map(|(_, phase, since, deadline)| (phase, since, deadline)));
    }
    hangs
}

#[test]
fn a_phase_that_lasts_too_long_is_told_once() {
    let hang = |phase: StepPhase, since, deadline| vec![(phase, since, deadline)];
    // Before five of its kind were measured the settings' deadline holds.
    let table = [
        (StepPhase::Replay, vec![], hang(StepPhase::Replay, 3.2, 3.0)),
        (StepPhase::Data, vec![0.1; 4], hang(StepPhase::Data, 3.2, 3.0)),
        (StepPhase::Data, vec![0.1; 5], hang(StepPhase::Data, 1.4, 1.25)),
        (StepPhase::Look, vec![0.5; 200], hang(StepPhase::Look, 3.4, 3.25)),
        // Only the last 64 count.
        (StepPhase::Move, [vec![9.0; 10], vec![0.0; 64]].concat(), hang(StepPhase::Move, 0.8, 0.75)),
        // Who waits for others is not to blame.
        (StepPhase::Reduce, vec![0.1; 64], vec![]),
        (StepPhase::Idle, vec![0.1; 64], vec![]),
        (StepPhase::Wait, vec![0.1; 64], vec![]),
    ];
    for (phase, took, expected) in table {
        let mut scene = Scene::with_workers();
        assert_eq!(watched(&mut scene, phase, &took, 8.0), expected, "{phase:?}");
    }
}

#[test]
fn what_a_phase_took_in_one_stage_says_nothing_about_the_next() {
    let mut scene = Scene::with_workers();
    let look = finished(StepPhase::Look, 0.1);
    let stages = [vec![look; 64], vec![finished(StepPhase::Idle, 0.0)], vec![look; 4]].concat();
    let began = scene.now;
    let reading = |scene: &Scene, finished| lives_in(scene, StepPhase::Look, began, finished);
    let first = reading(&scene, stages);
    assert_eq!(scene.lives(0.2, Some(first)), []);
    for _ in 0..14 {
        let next = reading(&scene, vec![]);
        assert_eq!(
            scene.lives(0.2, Some(next)),
            [],
            "the settings' deadline holds, not that of the first stage"
        );
    }
    let last = reading(&scene, vec![]);
    assert_eq!(hung(&scene.lives(0.2, Some(last))).len(), 1);
}

#[test]
fn a_wait_for_the_coordinator_within_a_stage_leaves_what_was_learned() {
    let mut scene = Scene::with_workers();
    let look = finished(StepPhase::Look, 0.1);
    let took = [vec![look; 5], vec![finished(StepPhase::Wait, 2.0)]].concat();
    let began = scene.now;
    let reading = |scene: &Scene, finished| lives_in(scene, StepPhase::Look, began, finished);
    let first = reading(&scene, took);
    scene.lives(0.2, Some(first));
    for _ in 0..5 {
        let next = reading(&scene, vec![]);
        assert_eq!(scene.lives(0.2, Some(next)), []);
    }
    let last = reading(&scene, vec![]);
    assert_eq!(hung(&scene.lives(0.2, Some(last))).len(), 1, "as after five without it");
}

#[test]
fn parts_of_a_phase_between_which_others_were_waited_for_are_one() {
    let mut scene = Scene::with_workers();
    let began = scene.now;
    let part = |resumed| FlightRecord { resumed, ..finished(StepPhase::Judge, 0.1) };
    let one = [vec![part(false)], vec![part(true); 9]].concat();
    let reading = |scene: &Scene, finished| lives_in(scene, StepPhase::Judge, began, finished);
    // Five of one second each: the deadline is 5.75 s, and not the 1.25 s of fifty short ones.
    let first = reading(&scene, vec![one; 5].concat());
    scene.lives(0.2, Some(first));
    for _ in 0..27 {
        let next = reading(&scene, vec![]);
        assert_eq!(scene.lives(0.2, Some(next)), []);
    }
    let last = reading(&scene, vec![]);
    assert_eq!(hung(&scene.lives(0.2, Some(last))).len(), 1);
}

#[test]
fn a_worker_without_a_sign_of_life_is_told_after_a_lease() {
    let mut scene = Scene::with_workers();
    let reading = |scene: &Scene| Reading {
        alive: Some(scene.now),
        current: Some(record(1, StepPhase::Reduce, s(100.0))),
        finished: vec![],
    };
    let first = reading(&scene);
    for _ in 0..5 {
        assert_eq!(scene.lives(0.2, Some(first.clone())), []);
    }
    let outputs = scene.lives(0.2, Some(first.clone()));
    assert_eq!(hung(&outputs), [("w0.0".to_owned(), StepPhase::Reduce, 1.2, LEASE)]);
    for _ in 0..10 {
        assert_eq!(scene.lives(0.2, Some(first.clone())), [], "told once");
    }
    // It lives, and is stopped once more.
    let second = reading(&scene);
    for _ in 0..5 {
        assert_eq!(hung(&scene.lives(0.2, Some(second.clone()))), []);
    }
    assert_eq!(hung(&scene.lives(0.2, Some(second))).len(), 1);
}

#[test]
fn only_workers_with_a_link_and_a_recorder_are_judged() {
    let mut scene = Scene::with_workers();
    for _ in 0..20 {
        assert_eq!(scene.lives(0.2, None), []);
    }
    let silent = Reading { alive: Some(scene.now), current: None, finished: vec![] };
    scene.does(AgentInput::WorkerSilent { link: 7 });
    for _ in 0..20 {
        assert_eq!(scene.lives(0.2, Some(silent.clone())), []);
    }
}

#[test]
fn an_agent_that_was_stopped_itself_blames_nobody() {
    let mut scene = Scene::with_workers();
    let reading = Reading {
        alive: Some(scene.now),
        current: Some(record(1, StepPhase::Look, scene.now)),
        finished: vec![],
    };
    scene.lives(0.2, Some(reading.clone()));
    // Less than a lease, so that the link holds: agent and worker were stopped together.
    for _ in 0..4 {
        assert_eq!(scene.lives(0.8, Some(reading.clone())), []);
    }
    for _ in 0..3 {
        assert_eq!(scene.lives(0.2, Some(reading.clone())), []);
    }
    let outputs: Vec<AgentOutput> = (0..4).flat_map(|_| scene.lives(0.2, Some(reading.clone()))).collect();
    assert_eq!(hung(&outputs).len(), 1, "what goes on afterwards counts");
}

#[test]
fn a_hang_is_told_again_to_a_coordinator_that_has_come_back() {
    let mut scene = Scene::with_workers();
    assert_eq!(watched(&mut scene, StepPhase::Look, &[], 4.0).len(), 1);
    scene.does(lost());
    scene.does(reached());
    scene.does(order(4, welcome()));
    assert_eq!(hung(&scene.after(0.2, tick(None))).len(), 1);
}
