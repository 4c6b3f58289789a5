//! A run of four toy workers on two nodes of this machine, as processes that a benchmark may strike.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longtake_shared::hint::Failure;
use longtake_shared::protocol::flight::{self, FlightLog};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::launch;
use super::told::Told;
use crate::commands::runtime::wait_for;
use crate::operator;
use crate::run::phase::PhaseKind;
use crate::status::{StatusReport, WorkerStatus};
use crate::worker_role::WorkerRole;

/// Workers of the run.
pub(super) const WORKERS: usize = 4;

/// How long an agent that is not heard of belongs to the run.
pub(super) const LEASE: Duration = Duration::from_secs(1);

/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_mins(1);

/// What every run is started with.
const SETTINGS: &[&str] = &[
    "train.max_steps=0",
    "train.epochs=100000000",
    "train.validate_every=0",
    "cluster.lease=1",
    "cluster.recovery=fast",
    "cluster.min_workers=1",
    "cluster.threads=1",
    "run.name=bench",
];

const RUN: &str = "runs/bench";

const AGENT: [&str; 7] = ["agent", "--run", RUN, "--slots", "2", "--threads", "1"];

/// The run. Dropping it kills its processes.
pub(super) struct Cluster {
    folder: PathBuf,
    coordinator: Role,
    agents: [Role; 2],
    /// What it has told.
    pub(super) told: Told,
}

/// A process of this program, killed with this value.
struct Role(Child);

impl Role {
    fn start(folder: &Path, words: &[&str]) -> Result<Self, Failure> {
        let failed = |error| Failure::new(format!("a process of the benchmark does not start: {error}"));
        let child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(words)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Ok(Self(child.map_err(failed)?))
    }

    fn kill(&mut self) -> Result<(), Failure> {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        ended.map(drop).map_err(|error| Failure::new(format!("a process cannot be killed: {error}")))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.kill());
    }
}

impl Cluster {
    /// Starts the run in a folder and waits until all its workers train.
    pub(super) fn start(folder: &Path, worker: WorkerRole, settings: &[&str]) -> Result<Self, Failure> {
        launch::prepare(folder, worker)?;
        let set = SETTINGS.iter().chain(settings).flat_map(|setting| ["--set", setting]);
        let words: Vec<&str> = ["coordinator", "launch.toml"].into_iter().chain(set).collect();
        let mut cluster = Self {
            folder: folder.to_owned(),
            coordinator: Role::start(folder, &words)?,
            agents: [Role::start(folder, &AGENT)?, Role::start(folder, &AGENT)?],
            told: Told::of(&folder.join(RUN).join("metrics.jsonl")),
        };
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    /// All train together, and have taken a step.
    pub(super) fn wait_until_whole(&mut self) -> Result<(), Failure> {
        self.wait("a world of four", |cluster| {
            let Ok(status) = cluster.status() else { return Ok(false) };
            Ok(status.phase == PhaseKind::Training && members(&status).len() == WORKERS)
        })?;
        self.wait_for_steps(2)
    }

    /// So many more steps have been told.
    pub(super) fn wait_for_steps(&mut self, steps: usize) -> Result<(), Failure> {
        let before = self.told()?.steps.len();
        for step in 1..=steps {
            self.wait("a step of all", |cluster| Ok(cluster.told()?.steps.len() >= before + step))?;
        }
        Ok(())
    }

    /// Kills an agent, and with it its workers; another takes its place.
    pub(super) fn lose_node(&mut self, node: usize) -> Result<(), Failure> {
        let agent = &mut self.agents[node % 2];
        agent.kill()?;
        *agent = Role::start(&self.folder, &AGENT)?;
        Ok(())
    }

    /// Kills the coordinator; the next one begins to take over.
    pub(super) fn lose_coordinator(&mut self) -> Result<(), Failure> {
        self.coordinator.kill()?;
        self.coordinator = Role::start(&self.folder, &["coordinator", "--resume", RUN])?;
        Ok(())
    }

    pub(super) fn status(&self) -> Result<StatusReport, Failure> {
        Ok(wait_for(operator::status(&self.folder.join(RUN)))??)
    }

    /// The member whose turn it is: each of them once, and again from the first.
    pub(super) fn member(&self, turn: usize) -> Result<WorkerStatus, Failure> {
        let members = members(&self.status()?);
        let nobody = || Failure::new("the run that is measured has no member");
        members.get(turn % members.len().max(1)).cloned().ok_or_else(nobody)
    }

    /// The flight recorder of a worker that lives.
    pub(super) fn flight(&self, worker: &WorkerStatus) -> Result<FlightLog, Failure> {
        FlightLog::open(&flight::path(&self.folder.join(RUN), worker.index as u32))
            .map_err(|error| unreadable(&error))
    }

    /// What the run has told until now.
    pub(super) fn told(&mut self) -> Result<&Told, Failure> {
        self.told.look().map_err(|error| {
            Failure::new(format!("the metrics of the run that is measured cannot be read: {error}"))
        })?;
        Ok(&self.told)
    }

    /// Asks again and again until something has come about.
    pub(super) fn wait(
        &mut self,
        what: &str,
        mut there: impl FnMut(&mut Self) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        while !there(self)? {
            if begun.elapsed() > PATIENCE {
                let log = self.folder.join(RUN).join("logs").display().to_string();
                return Err(Failure::new(format!("{what} does not come")).hint(format!("read {log}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Those that belong to the live generation, by rank.
pub(super) fn members(status: &StatusReport) -> Vec<WorkerStatus> {
    let mut members: Vec<_> = status.workers.iter().filter(|worker| worker.rank.is_some()).cloned().collect();
    members.sort_by_key(|worker| worker.rank);
    members
}

pub(super) fn unreadable(error: &std::io::Error) -> Failure {
    Failure::new(format!("a flight recorder of the run that is measured cannot be read: {error}"))
}

/// Sends a signal; to a process that has just ended it does nothing.
pub(super) fn signal(worker: &WorkerStatus, signal: Signal) -> Result<(), Failure> {
    let pid = worker.pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let pid = pid.ok_or_else(|| Failure::new("a worker without a process"))?;
    match kill_process(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(Failure::new(format!("a worker cannot be struck: {error}"))),
    }
}
