//! A worker without a model: it speaks the whole protocol and computes nothing. Its first argument says how it behaves.
//!
//! As `coordinate FOLDER` it is a whole run of such workers, so that a test can kill a run from outside.

#![expect(clippy::print_stderr, reason = "a worker's standard error is its log")]

#[path = "support.rs"]
mod support;

use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use longtake_shared::ids::{Epoch, Generation, Rank, Step};
use longtake_shared::units::{Seconds, TimeSegment};
use longtake_worker::control::{
    Assignment, ControlError, Detection, Directive, Ending, FailureScope, Progress, SavedParts, SavedStage,
    Session, Stage, StepPhase, WorkerHello, live_with_parent,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments[1] == "coordinate" {
        support::coordinate(Path::new(&arguments[2]));
        return ExitCode::SUCCESS;
    }
    live_with_parent().expect("the agent lives");
    // `BEHAVIOUR --socket PATH --index I --bind IP --flight PATH`, as the agent says it.
    let [_, behaviour, _, socket, _, index, _, bind, _, flight] = &arguments[..] else {
        panic!("an agent starts this: {arguments:?}")
    };
    let index: u32 = index.parse().expect("an index is a number");
    let bind: IpAddr = bind.parse().expect("an address");
    if behaviour == "exit" {
        eprintln!("worker {index} says: no such file");
        return ExitCode::from(78);
    }
    let ring = TcpListener::bind((bind, 0)).expect("a free port");
    let ring_address = ring.local_addr().expect("a bound address");
    let hello = WorkerHello { index, pid: std::process::id(), ring_address };
    let session = Session::connect(Path::new(socket), Path::new(flight), hello).expect("an agent");
    match behave(behaviour, &Arc::new(session)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(1)
        }
    }
}

fn behave(behaviour: &str, session: &Arc<Session>) -> Result<u8, ControlError> {
    if behaviour == "hang" {
        eprintln!("the disk does not answer");
        session.enter(Step(3), StepPhase::Look);
        loop {
            std::thread::park();
        }
    }
    let Directive::Form(assignment) = session.next_directive()? else { return Ok(2) };
    assert_eq!(assignment.peers.len(), assignment.world);
    let aborted = Arc::new((AtomicBool::new(false), Mutex::new(()), Condvar::new()));
    let flag = Arc::clone(&aborted);
    session.on_abort(Box::new(move |_, reason| {
        eprintln!("aborted: {reason}");
        let _guard = flag.1.lock().expect("nobody panics");
        flag.0.store(true, Ordering::Release);
        flag.2.notify_all();
    }));
    if behaviour == "stale" {
        say_stale_things(session, &assignment)?;
    }
    session.ready(assignment.generation)?;
    let generation = match session.next_directive()? {
        Directive::Train { generation } => generation,
        // A peer has died before this worker took its first step.
        other => return Ok(freed(&other, assignment.generation)),
    };
    let is = |rank| assignment.rank == Rank(rank);
    match behaviour {
        "die" if is(1) => {
            eprintln!("rank 1 says: out of memory");
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL)
                .expect("a process may kill itself");
        }
        "fail" if is(0) => {
            eprintln!("rank 0 says: the loss is not finite");
            session.failed(
                generation,
                "the loss was not finite 20 times in a row",
                None,
                FailureScope::Forever,
            )?;
            return Ok(78);
        }
        "short" | "stale" => return train(session, &assignment),
        "stop" => return until_stopped(session, &assignment, &aborted.0),
        _ => {}
    }
    // A worker that is stuck in a collective: only an abort frees it.
    let guard = aborted.1.lock().expect("nobody panics");
    let guard = aborted.2.wait_while(guard, |()| !aborted.0.load(Ordering::Acquire)).expect("nobody panics");
    drop(guard);
    Ok(freed(&session.next_directive()?, generation))
}

fn freed(directive: &Directive, generation: Generation) -> u8 {
    match directive {
        Directive::Abort { generation: over, reason } if *over == generation => {
            eprintln!("freed: {reason}");
            0
        }
        _ => 4,
    }
}

/// Three steps, a validation, a checkpoint, the end.
fn train(session: &Session, assignment: &Assignment) -> Result<u8, ControlError> {
    let generation = assignment.generation;
    for step in 1..=3 {
        session.enter(Step(step), StepPhase::Look);
        session.progress(generation, &progress(step));
    }
    let step = Step(3);
    let segment = TimeSegment { start: Seconds(1.0), end: Seconds(2.0) };
    let found = Detection { label: 0, segment, score: 0.5 };
    session.detections(generation, step, &format!("video{}", assignment.rank.0), vec![found])?;
    session.validation_done(generation, step)?;
    let Directive::Validated { average_map, .. } = session.next_directive()? else { return Ok(5) };
    save(session, assignment, step, Some(average_map))?;
    session.finished(generation, step, Ending::Completed)?;
    Ok(if session.next_directive()? == Directive::Shutdown { 0 } else { 6 })
}

fn until_stopped(
    session: &Session,
    assignment: &Assignment,
    aborted: &AtomicBool,
) -> Result<u8, ControlError> {
    let mut step = 0;
    while !session.flags().stop && !aborted.load(Ordering::Acquire) {
        if step < 100 {
            step += 1;
            session.enter(Step(step), StepPhase::Judge);
            session.progress(assignment.generation, &progress(step));
        } else {
            // It goes on doing this and does not hang in it.
            session.enter(Step(step), StepPhase::Judge);
        }
        std::thread::yield_now();
    }
    // Real ranks agree on the step in their all-reduce.
    save(session, assignment, Step(7), None)?;
    session.finished(assignment.generation, Step(7), Ending::Stopped)?;
    Ok(if session.next_directive()? == Directive::Shutdown { 0 } else { 6 })
}

fn save(
    session: &Session,
    assignment: &Assignment,
    step: Step,
    average_map: Option<f64>,
) -> Result<(), ControlError> {
    let parts =
        serde_json::json!({ "rank": assignment.rank, "lanes": assignment.lanes[assignment.rank.index()] });
    let saved = SavedParts { stage: SavedStage::Train, step, average_map, parts };
    session.parts_saved(assignment.generation, saved)?;
    session.wait_committed(assignment.generation, SavedStage::Train, step, PATIENCE).map(drop)
}

/// What a rank of a generation that is over would say.
fn say_stale_things(session: &Session, assignment: &Assignment) -> Result<(), ControlError> {
    let over = Generation(assignment.generation.0 - 1);
    session.ready(over)?;
    session.progress(over, &progress(999));
    let parts = serde_json::json!("stale");
    session.parts_saved(
        over,
        SavedParts { stage: SavedStage::Train, step: Step(3), average_map: None, parts },
    )?;
    session.finished(over, Step(3), Ending::Completed)
}

fn progress(step: u64) -> Progress {
    Progress {
        stage: Stage::Train,
        done: step,
        total: 3,
        epoch: Epoch(0),
        loss: Some(1.0 / step as f64),
        numbers: [("positives".to_owned(), 4.0)].into(),
        elapsed: Seconds(0.1),
    }
}
