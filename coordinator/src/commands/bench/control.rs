//! How long the engine takes to decide on a new generation of 128 workers, of which one is lost.

use std::path::Path;
use std::time::{Duration, Instant};

use longtake_shared::bench::{Row, Times};
use longtake_shared::config::Recovery;
use longtake_shared::hint::Failure;
use longtake_shared::ids::{AgentId, Generation, Incarnation, LaneId, RunId, Step, WorkerId};
use longtake_shared::protocol::{ExitCause, Identity, Kept, Order, SavedStage, WorkerEnd, WorkerReport};

use crate::journal::{Journal, JournalError};
use crate::run::command::Command;
use crate::run::event::Event;
use crate::run::phase::Team;
use crate::run::record::Record;
use crate::run::{RunEngine, Settings};

const WORKERS: usize = 128;
const WORKERS_A_NODE: usize = 4;
const DECISIONS: usize = 500;

/// Measures whole decisions: the death, each survivor's last word, and the new generation; by the engine alone, and with the
/// record of it that a coordinator makes durable before it tells anybody.
pub(super) fn measure(folder: &Path) -> Result<Vec<Row>, Failure> {
    let mut journal = Journal::open(folder)?.0;
    let (mut alone, mut durable) = (Times::default(), Times::default());
    for _ in 0..DECISIONS {
        alone.push(decide(&mut |_| Ok(()))?);
        durable.push(decide(&mut |record| journal.append(record))?);
    }
    Ok(vec![
        alone.row("a new generation of 127 workers, decided by the engine alone"),
        durable.row("the same, its record synced to the journal on the way"),
    ])
}

/// How long a decision took, whose records are kept by `keep`.
fn decide(keep: &mut Keep<'_>) -> Result<Duration, Failure> {
    let mut cluster = Cluster::training();
    let begun = Instant::now();
    let Told { formed, records } = cluster.loses_one(keep)?;
    let took = begun.elapsed();
    if !formed || records == 0 {
        return Err(Failure::new(
            "the engine has not formed a generation of the survivors, or kept no record",
        ));
    }
    Ok(took)
}

/// Makes a record durable.
type Keep<'a> = dyn FnMut(&Record) -> Result<(), JournalError> + 'a;

/// What commands came to.
#[derive(Debug, Default)]
struct Told {
    /// The survivors were told of their generation.
    formed: bool,
    /// Records that were kept before.
    records: usize,
}

impl Told {
    /// Carries commands out in their order.
    fn carry_out(&mut self, commands: Vec<Command>, keep: &mut Keep<'_>) -> Result<(), JournalError> {
        for command in commands {
            match command {
                Command::Journal(record) => {
                    keep(&record)?;
                    self.records += 1;
                }
                Command::Tell { order: Order::Form(_), .. } => self.formed = true,
                _ => {}
            }
        }
        Ok(())
    }
}

/// An engine whose run trains.
struct Cluster {
    engine: RunEngine,
    team: Team,
}

impl Cluster {
    fn training() -> Self {
        let settings = Settings {
            run: RunId("bench".into()),
            workers: WORKERS,
            fewest: 1,
            spares: 0,
            lanes: 2 * WORKERS,
            recovery: Recovery::Fast,
            lease: Duration::from_secs(1),
            gather_timeout: Duration::from_mins(1),
            coordinator_grace: Duration::from_mins(1),
            phase_deadline: Duration::from_mins(1),
            stop_grace: Duration::from_mins(1),
            started_from: None,
        };
        let mut engine = RunEngine::new(settings, Incarnation(1), Generation(0), Duration::ZERO);
        let mut commands = Vec::new();
        for node in 0..WORKERS / WORKERS_A_NODE {
            commands.extend(engine.handle(
                Duration::ZERO,
                Event::AgentConnected {
                    agent: AgentId(format!("node{node}")),
                    host: format!("node{node}"),
                    slots: WORKERS_A_NODE,
                    held: Vec::new(),
                    ended: Vec::new(),
                },
            ));
        }
        for command in commands {
            if let Command::StartWorker { worker, index, .. } = command {
                let ring_address = ([10, 0, 0, 1], 4000 + index as u16).into();
                engine.handle(Duration::ZERO, Event::WorkerJoined { worker, ring_address, pid: 1 });
            }
        }
        let team = engine.state().phase.team().cloned();
        let mut cluster = Self { engine, team: team.unwrap_or_else(nobody) };
        for worker in cluster.team.members.clone() {
            cluster.hears(&worker, WorkerReport::Ready);
        }
        cluster
    }

    fn hears(&mut self, worker: &WorkerId, report: WorkerReport) -> Vec<Command> {
        let identity = Identity {
            run: RunId("bench".into()),
            incarnation: self.team.incarnation,
            generation: self.team.generation,
            rank: self.team.rank(worker).unwrap_or_default(),
        };
        let event = Event::FromWorker { worker: worker.clone(), identity, report };
        self.engine.handle(Duration::from_secs(1), event)
    }

    /// A worker dies, and the others leave.
    fn loses_one(&mut self, keep: &mut Keep<'_>) -> Result<Told, Failure> {
        let mut told = Told::default();
        let Some(lost) = self.team.members.get(WORKERS / 2).cloned() else { return Ok(told) };
        let end =
            WorkerEnd { worker: lost.clone(), cause: ExitCause::Signal(9), log: Vec::new(), last: None };
        told.carry_out(self.engine.handle(Duration::from_secs(1), Event::WorkerExited(end)), keep)?;
        let lanes: Vec<Vec<LaneId>> = self.team.lanes.clone();
        for (worker, lanes) in self.team.members.clone().into_iter().zip(lanes) {
            if worker != lost {
                let kept = Some(Kept { stage: SavedStage::Train, step: Step(7), lanes, copies: Vec::new() });
                told.carry_out(self.hears(&worker, WorkerReport::Left { kept }), keep)?;
            }
        }
        Ok(told)
    }
}

fn nobody() -> Team {
    Team { generation: Generation(0), incarnation: Incarnation(0), members: Vec::new(), lanes: Vec::new() }
}
