//! A worker that lives and hangs in a phase: how soon its coordinator knows, beside what its agent had to wait for.

use std::time::{Duration, Instant};

use longtake_shared::hint::Failure;
use longtake_shared::ids::WorkerId;
use longtake_shared::protocol::Doing;
use longtake_shared::protocol::flight::{self, Flight, FlightLog};
use longtake_shared::protocol::stamp::StepPhase;
use rustix::process::Signal;

use super::cluster::{Cluster, LEASE, signal, unreadable};
use crate::agent::core::{Expected, Reading, Watch};
use crate::status::WorkerStatus;

/// How long a worker is kept from running at a time: longer than from one sign of life to the next, so that one is due when
/// it may run again, and not so long that it is taken for frozen.
const HELD: Duration = Duration::from_millis(750);

/// The phase that workers are kept in: the longest of the toy, so that a moment is not enough to end it.
const PHASE: StepPhase = StepPhase::Replay;

/// How long a worker may run to give a sign of life and to come to that phase.
const RELEASED: Duration = Duration::from_millis(200);

/// How long after its deadline a hang may go unnoticed: then the worker has left the phase in its moments.
const GRACE: Duration = Duration::from_secs(2);

/// One hang.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hang {
    /// From the begin of the phase that did not end to the moment in which its coordinator knew.
    pub(super) noticed: Duration,
    /// What the agent had learned of that phase.
    pub(super) expected: Expected,
}

/// Lets a member hang. Gives nothing where the machine was too slow to let it give its signs of life.
pub(super) fn strike(cluster: &mut Cluster, turn: usize) -> Result<Option<Hang>, Failure> {
    let mut starved = Starved::of(cluster, turn)?;
    cluster.wait("what a phase mostly takes", |_| {
        starved.look()?;
        Ok(starved.watch.expected(PHASE).is_some())
    })?;
    let before = cluster.told()?.recoveries.len();
    let Some(noticed) = starved.starve_until(|victim| is_given_up(cluster, victim))? else {
        return Ok(None);
    };
    let silent = noticed.saturating_sub(starved.flight()?.alive.unwrap_or_default());
    cluster.wait("the next generation", |cluster| Ok(cluster.told()?.recoveries.len() > before))?;
    let incident = cluster.told.recoveries[before].incident.clone();
    let Some(doing) = incident.and_then(|incident| incident.doing) else {
        return Err(Failure::new("a worker that was made to hang was lost for another reason"));
    };
    Ok(starved.hung_in(&doing, noticed)?.filter(|_| silent < LEASE))
}

/// Whether the coordinator has given a worker up although its process has not ended.
fn is_given_up(cluster: &Cluster, victim: &WorkerId) -> Result<bool, Failure> {
    let status = cluster.status()?;
    let known = status.workers.iter().find(|worker| worker.worker == *victim);
    match known {
        Some(worker) if worker.alive => Ok(false),
        Some(worker) if worker.ended.is_some() => {
            Err(Failure::new("a worker that was made to hang has ended"))
        }
        _ => Ok(true),
    }
}

/// A worker that is stopped but for moments in which it gives a sign of life: its process lives, and its work stands still.
struct Starved {
    worker: WorkerStatus,
    log: FlightLog,
    /// What its agent knows of it: the same records, read in the same way.
    watch: Watch,
    alive: Option<Duration>,
    /// The newest record at the last reading.
    seen: u64,
}

impl Starved {
    fn of(cluster: &Cluster, turn: usize) -> Result<Self, Failure> {
        let worker = cluster.member(turn)?;
        let log = cluster.flight(&worker)?;
        Ok(Self { worker, log, watch: Watch::default(), alive: None, seen: 1 })
    }

    /// Keeps it from working until somebody has noticed; gives when that was, or lets it go where nobody has.
    fn starve_until(
        &mut self,
        noticed: impl Fn(&WorkerId) -> Result<bool, Failure>,
    ) -> Result<Option<Duration>, Failure> {
        let begun = Instant::now();
        while begun.elapsed() < self.watch.expected(PHASE).map_or(GRACE, |known| known.deadline + GRACE) {
            self.give_sign_of_life()?;
            let held = Instant::now();
            while held.elapsed() < HELD {
                if noticed(&self.worker.worker)? {
                    return Ok(Some(flight::now()));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        signal(&self.worker, Signal::CONT)?;
        Ok(None)
    }

    /// Lets it run until it has given one, and is where it is to hang.
    fn give_sign_of_life(&mut self) -> Result<(), Failure> {
        let before = self.alive;
        signal(&self.worker, Signal::CONT)?;
        let released = Instant::now();
        loop {
            self.look()?;
            let there = self.watch.current().is_some_and(|current| current.phase == PHASE);
            if (there && self.alive != before) || released.elapsed() > RELEASED {
                break;
            }
            // It needs the processor more than this.
            std::thread::sleep(Duration::from_micros(20));
        }
        signal(&self.worker, Signal::STOP)
    }

    fn look(&mut self) -> Result<(), Failure> {
        let flight = self.log.read_from(self.seen).map_err(|error| unreadable(&error))?;
        self.seen = flight.records.last().map_or(self.seen, |newest| newest.sequence);
        self.alive = flight.alive;
        self.watch.read(Reading::from(&flight));
        Ok(())
    }

    fn flight(&self) -> Result<Flight, Failure> {
        self.log.read().map_err(|error| unreadable(&error))
    }

    /// What the phase was that its agent has told of; nothing where it is not known how long that takes.
    fn hung_in(&mut self, told: &Doing, noticed: Duration) -> Result<Option<Hang>, Failure> {
        self.look()?;
        let records = self.flight()?.records;
        let of_hang = |record: &&flight::FlightRecord| (record.step, record.phase) == (told.step, told.phase);
        let begun = records.iter().rfind(of_hang).map(|record| record.entered_at);
        let expected = self.watch.expected(told.phase);
        Ok(begun
            .zip(expected)
            .map(|(begun, expected)| Hang { noticed: noticed.saturating_sub(begun), expected }))
    }
}
