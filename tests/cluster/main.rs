//! Coordinator, agent and worker processes of one machine together: the workers are fake, everything between them is not.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod agents;
mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longtake_coordinator::agent::AgentOptions;
use longtake_coordinator::agent::core::OnLoss;
use longtake_coordinator::agent::worker_command::WorkerCommand;
use longtake_coordinator::run::event::StopSource;
use longtake_coordinator::run::phase::PhaseKind;
use longtake_coordinator::server::address::{self, Whereabouts};
use longtake_coordinator::signals::Signals;
use longtake_coordinator::updates::{Outcome, RunUpdate};
use longtake_coordinator::{join_as_agent, operator};
use longtake_shared::hint::ExitCode;
use longtake_shared::ids::{Generation, Incarnation, LaneId, Rank, Step};
use longtake_shared::protocol::stamp::StepPhase;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use support::{Chain, DEADLINE, Run};

fn fake_worker() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_fake_worker"))
}

fn in_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(test)
}

fn formed(update: &RunUpdate) -> bool {
    matches!(update, RunUpdate::Formed { .. })
}

/// Processes by a handle that stays theirs.
fn watch(pids: &[u32]) -> Vec<OwnedFd> {
    pids.iter()
        .map(|pid| pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap())
        .collect()
}

fn wait_until_gone(processes: &[OwnedFd]) {
    for process in processes {
        let mut polled = [PollFd::new(process, PollFlags::IN)];
        let timeout = Timespec { tv_sec: DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
        assert_eq!(poll(&mut polled, Some(&timeout)).unwrap(), 1, "a worker has outlived its agent");
    }
}

#[test]
fn workers_form_train_validate_save_and_end() {
    for workers in [2, 4] {
        in_runtime(async {
            let folder = tempfile::tempdir().unwrap();
            let mut run = Run::start(folder.path(), fake_worker(), "short", workers);
            assert_eq!(run.end().await, Outcome::Done);

            let commits = run.chain.commits.lock().unwrap();
            assert_eq!(commits.len(), 1);
            assert_eq!((commits[0].step, commits[0].average_map), (Step(3), Some(0.25)));
            assert_eq!((commits[0].incarnation, commits[0].generation), (Incarnation(1), Generation(5)));
            let ranks: Vec<u64> =
                commits[0].parts.iter().map(|part| part["rank"].as_u64().unwrap()).collect();
            assert_eq!(ranks, (0..workers as u64).collect::<Vec<_>>());
            let lanes: Vec<LaneId> = commits[0].lanes.iter().flatten().copied().collect();
            assert_eq!(lanes, (0..8).map(LaneId).collect::<Vec<_>>());

            let validations = run.validations.lock().unwrap();
            assert_eq!((validations.len(), validations[0].step), (1, Step(3)));
            assert_eq!(validations[0].detections.len(), workers);

            assert!(run.seen.iter().any(|update| matches!(update, RunUpdate::Progress(at) if at.done == 3)));
            assert!(run.seen.iter().any(|update| *update == RunUpdate::Saved { step: Step(3), sequence: 1 }));
            assert_eq!(run.seen.iter().filter(|update| formed(update)).count(), 1);
            assert_eq!(run.seen.last(), Some(&RunUpdate::Finished { outcome: Outcome::Done }));
        });
    }
}

#[test]
fn a_stop_reaches_every_rank_and_ends_with_a_checkpoint() {
    for source in [None, Some(StopSource::Interrupt), Some(StopSource::Scheduler)] {
        in_runtime(async {
            let folder = tempfile::tempdir().unwrap();
            let mut run = Run::start(folder.path(), fake_worker(), "stop", 2);
            run.wait_for(|update| matches!(update, RunUpdate::Progress(_))).await;
            match source {
                Some(source) => run.signals.send(source).await.unwrap(),
                None => operator::stop(folder.path()).await.unwrap(),
            }
            assert_eq!(run.end().await, Outcome::Preempted { step: Step(7) });
            assert_eq!(run.chain.commits.lock().unwrap().len(), 1);
        });
    }
}

#[test]
fn status_tells_phase_workers_lanes_and_what_they_do() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::start(folder.path(), fake_worker(), "stop", 2);
        run.wait_for(|update| matches!(update, RunUpdate::Progress(_))).await;
        // Asked at the pace of a person: a storm of connections would use up this machine's ports.
        let mut pace = tokio::time::interval(Duration::from_millis(200));
        let seen = async {
            loop {
                pace.tick().await;
                let report = match operator::status(folder.path()).await {
                    Ok(report) => report,
                    Err(error) => panic!("{error}; the run ended with {:?}", run.end().await),
                };
                if report.workers.iter().all(|worker| worker.doing.is_some()) {
                    return report;
                }
            }
        };
        let report = tokio::time::timeout(DEADLINE, seen).await.unwrap();
        assert_eq!((report.phase, report.generation), (PhaseKind::Training, Generation(5)));
        assert_eq!(report.workers.len(), 2);
        assert_eq!(report.workers[1].rank, Some(Rank(1)));
        assert_eq!(report.workers[1].lanes, (4..8).map(LaneId).collect::<Vec<_>>());
        assert!(report.workers.iter().all(|worker| worker.alive && worker.pid.is_some()));
        assert!(report.workers.iter().all(|worker| worker.doing.unwrap().phase == StepPhase::Judge));
        operator::stop(folder.path()).await.unwrap();
        run.end().await;
        let gone = operator::status(folder.path()).await.unwrap_err();
        assert!(gone.to_string().starts_with("no coordinator of the run in"), "{gone}");
    });
}

#[test]
fn without_the_token_nothing_is_told_or_done() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::start(folder.path(), fake_worker(), "stop", 1);
        run.wait_for(formed).await;
        let elsewhere = tempfile::tempdir().unwrap();
        let mut found = address::find(folder.path()).unwrap();
        found.token = "guessed".into();
        let forged = serde_json::to_string(&found).unwrap();
        std::fs::write(elsewhere.path().join(address::ADDRESS_FILE), forged).unwrap();
        for refused in
            [operator::stop(elsewhere.path()).await, operator::status(elsewhere.path()).await.map(drop)]
        {
            let refused = refused.unwrap_err().to_string();
            assert_eq!(refused, "the coordinator refuses: the token is not this run's");
        }
        operator::stop(folder.path()).await.unwrap();
        assert_eq!(run.end().await, Outcome::Preempted { step: Step(7) });
    });
}

#[test]
fn a_killed_worker_ends_the_run_with_rank_cause_and_log() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::start(folder.path(), fake_worker(), "die", 2);
        let Outcome::Failed { cause, rank, log, never_restart, resumable_at, .. } = run.end().await else {
            panic!("the run cannot have succeeded");
        };
        // It is started again, and dies again: no restart helps.
        assert!(
            cause.starts_with("3 generations in a row made no progress; the last one ended because "),
            "{cause}"
        );
        assert!(cause.contains("worker 1 (rank 1) was killed by signal 9"), "{cause}");
        assert_eq!((rank, never_restart, resumable_at), (Some(Rank(1)), true, None));
        assert_eq!(log, ["rank 1 says: out of memory"]);
        let survivor = std::fs::read_to_string(folder.path().join("logs/worker-0.log")).unwrap();
        assert!(survivor.contains("freed: worker 1 (rank 1) was killed by signal 9"), "{survivor}");
    });
}

#[test]
fn a_death_before_the_first_word_is_told_with_its_log() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::start(folder.path(), fake_worker(), "exit", 1);
        let Outcome::Failed { cause, log, never_restart, .. } = run.end().await else {
            panic!("the run cannot have succeeded");
        };
        assert_eq!(cause, "worker 0 exited with code 78 before it connected");
        assert_eq!((log, never_restart), (vec!["worker 0 says: no such file".to_owned()], true));
    });
}

#[test]
fn a_worker_that_gives_up_is_quoted() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::start(folder.path(), fake_worker(), "fail", 2);
        let Outcome::Failed { cause, rank, log, never_restart, .. } = run.end().await else {
            panic!("the run cannot have succeeded");
        };
        assert_eq!(cause, "the loss was not finite 20 times in a row");
        assert_eq!((rank, never_restart), (Some(Rank(0)), true));
        assert_eq!(log, ["rank 0 says: the loss is not finite"]);
    });
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::start(folder.path(), Path::new("/nowhere/longtake"), "short", 1);
        let Outcome::Failed { cause, .. } = run.end().await else { panic!("the run cannot have succeeded") };
        assert!(
            cause.starts_with("worker 0 could not be started: cannot start `/nowhere/longtake`"),
            "{cause}"
        );
    });
}

#[test]
fn what_is_said_for_an_older_generation_is_dropped() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::start(folder.path(), fake_worker(), "stale", 2);
        assert_eq!(run.end().await, Outcome::Done);
        assert!(!run.seen.iter().any(|update| matches!(update, RunUpdate::Progress(at) if at.done == 999)));
        let commits = run.chain.commits.lock().unwrap();
        assert_eq!(commits.len(), 1);
        assert!(commits[0].parts.iter().all(|part| part["rank"].is_number()), "{:?}", commits[0].parts);
    });
}

#[test]
fn a_checkpoint_that_cannot_be_committed_fails_the_run() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let chain = Chain { fail: true, ..Chain::default() };
        let mut run = Run::with_chain(folder.path(), fake_worker(), "short", 2, chain);
        let Outcome::Failed { cause, .. } = run.end().await else { panic!("the run cannot have succeeded") };
        assert_eq!(cause, "the checkpoint was not saved: the store is full");
    });
}

#[test]
fn a_second_interrupt_kills_workers_that_do_not_stop() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::start(folder.path(), fake_worker(), "stuck", 2);
        run.wait_for(formed).await;
        let report = operator::status(folder.path()).await.unwrap();
        let workers = watch(&report.workers.iter().filter_map(|worker| worker.pid).collect::<Vec<_>>());
        run.signals.send(StopSource::Interrupt).await.unwrap();
        run.signals.send(StopSource::Interrupt).await.unwrap();
        let Outcome::Failed { cause, .. } = run.end().await else { panic!("the run cannot have succeeded") };
        assert_eq!(cause, "killed by a second Ctrl-C");
        assert_eq!(workers.len(), 2);
        wait_until_gone(&workers);
    });
}

#[test]
fn a_folder_in_use_is_refused_and_a_second_run_has_higher_numbers() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let chain = Chain::default();
        let mut first = Run::with_chain(folder.path(), fake_worker(), "stop", 1, chain.clone());
        first.wait_for(formed).await;
        let refused = Run::start(folder.path(), fake_worker(), "short", 1).refused().await.to_string();
        assert!(refused.ends_with(&format!("is in use by process {}", std::process::id())), "{refused}");
        first.signals.send(StopSource::Operator).await.unwrap();
        first.end().await;

        let mut second = Run::with_chain(folder.path(), fake_worker(), "short", 1, chain);
        assert_eq!(second.end().await, Outcome::Done);
        let commits = second.chain.commits.lock().unwrap();
        assert_eq!((commits[1].incarnation, commits[1].generation), (Incarnation(2), Generation(1001)));
    });
}

#[test]
fn an_agent_of_its_own_joins_and_passes_a_stop_on() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::without_agent(folder.path(), 2);
        run.wait_for(|update| matches!(update, RunUpdate::Gathering { present: 0, needed: 2 })).await;
        let worker_command =
            WorkerCommand { program: vec![fake_worker().into(), "stop".into()], threads: 1, workers: 2 };
        let (signals, source) = Signals::channel();
        let options = AgentOptions {
            coordinator: Whereabouts::Folder(folder.path().to_owned()),
            on_loss: OnLoss::Reconnect,
            slots: 2,
            worker_command,
            run_folder: folder.path().to_owned(),
        };
        let agent = tokio::spawn(join_as_agent(options, source));
        run.wait_for(|update| matches!(update, RunUpdate::Progress(_))).await;
        signals.send(StopSource::Scheduler).await.unwrap();
        assert_eq!(run.end().await, Outcome::Preempted { step: Step(7) });
        let exit = tokio::time::timeout(DEADLINE, agent).await.unwrap().unwrap().unwrap();
        assert_eq!(exit, ExitCode::Preempted, "an agent ends as its run does");
    });
}

#[test]
fn workers_do_not_outlive_a_killed_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let mut coordinator = Command::new(fake_worker())
        .arg("coordinate")
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(coordinator.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "training\n");
    let report = in_runtime(operator::status(folder.path())).unwrap();
    let workers = watch(&report.workers.iter().filter_map(|worker| worker.pid).collect::<Vec<_>>());
    assert_eq!(workers.len(), 2);
    coordinator.kill().unwrap();
    coordinator.wait().unwrap();
    wait_until_gone(&workers);
}

#[test]
fn four_workers_are_told_to_train_soon_after_the_launch() {
    in_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let begin = Instant::now();
        let mut run = Run::start(folder.path(), fake_worker(), "short", 4);
        run.wait_for(formed).await;
        let launch = begin.elapsed();
        run.end().await;
        // The bound is for a loaded machine; the figure itself is in the test's output.
        eprintln!("launch to the first order to train, 4 workers: {:.1} ms", launch.as_secs_f64() * 1e3);
        assert!(launch < Duration::from_secs(10), "{launch:?}");
    });
}
