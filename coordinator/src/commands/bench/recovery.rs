//! From a fault to the next step that is done: real processes, killed and stopped by their ids.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longtake_shared::bench::{Row, Times};
use longtake_shared::hint::Failure;
use rustix::process::{Pid, Signal, kill_process};

use super::launch;
use crate::commands::runtime::wait_for;
use crate::operator;
use crate::run::phase::PhaseKind;
use crate::status::StatusReport;
use crate::worker_role::WorkerRole;

/// Faults of each kind.
const FAULTS: usize = 20;

/// Longer than any recovery should take.
const PATIENCE: Duration = Duration::from_mins(1);

/// In a line of the metrics that tells of a step of the training.
const STEP: &str = "\"positives\"";

/// In a line that tells of a recovery.
const RECOVERED: &str = "\"recovered\"";

/// What every run of this benchmark is started with.
const SETTINGS: &[&str] = &[
    "launch.toml",
    "--set",
    "train.max_steps=0",
    "--set",
    "train.epochs=100000000",
    "--set",
    "train.validate_every=0",
    "--set",
    "cluster.lease=1",
    "--set",
    "cluster.recovery=fast",
    "--set",
    "cluster.min_workers=1",
    "--set",
    "cluster.threads=1",
    "--set",
    "checkpoint.interval=5",
    "--set",
    "run.name=recovery",
];

/// Strikes a run of four workers on two nodes.
pub(super) fn measure(folder: &Path, worker: WorkerRole) -> Result<Vec<Row>, Failure> {
    launch::prepare(folder, worker)?;
    let mut cluster = Cluster::start(folder)?;
    Ok(vec![
        cluster.strike("worker killed -> next step", |cluster| {
            let victim = cluster.last_member()?;
            signal(victim, Signal::KILL)
        })?,
        cluster.strike("worker stopped -> next step", |cluster| {
            let victim = cluster.last_member()?;
            signal(victim, Signal::STOP)
        })?,
        cluster.strike("node lost -> next step", |cluster| {
            cluster.agents[1].kill()?;
            cluster.agents[1] = Role::start(folder, &AGENT)?;
            Ok(())
        })?,
        cluster.restart()?,
    ])
}

const AGENT: [&str; 7] = ["agent", "--run", "runs/recovery", "--slots", "2", "--threads", "1"];

struct Cluster {
    folder: PathBuf,
    coordinator: Role,
    agents: [Role; 2],
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
    fn start(folder: &Path) -> Result<Self, Failure> {
        let coordinator: Vec<&str> = ["coordinator"].iter().chain(SETTINGS).copied().collect();
        let mut cluster = Self {
            folder: folder.to_owned(),
            coordinator: Role::start(folder, &coordinator)?,
            agents: [Role::start(folder, &AGENT)?, Role::start(folder, &AGENT)?],
        };
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    fn strike(
        &mut self,
        name: &str,
        mut fault: impl FnMut(&mut Self) -> Result<(), Failure>,
    ) -> Result<Row, Failure> {
        let mut times = Times::default();
        for _ in 0..FAULTS {
            self.wait_until_whole()?;
            let (before, begun) = (self.recoveries(), Instant::now());
            fault(self)?;
            self.wait("the next step", |cluster| cluster.has_stepped_since(before).then_some(()))?;
            times.push(begun.elapsed());
        }
        Ok(times.row(name))
    }

    /// Kills the coordinator: training goes on, and the next one takes over.
    fn restart(&mut self) -> Result<Row, Failure> {
        let mut times = Times::default();
        for _ in 0..FAULTS {
            self.wait_until_whole()?;
            let begun = Instant::now();
            self.coordinator.kill()?;
            self.coordinator = Role::start(&self.folder, &["coordinator", "--resume", "runs/recovery"])?;
            self.wait("the coordinator", |cluster| {
                cluster.status().is_ok_and(|status| status.phase == PhaseKind::Training).then_some(())
            })?;
            times.push(begun.elapsed());
        }
        Ok(times.row("coordinator killed -> the next one has taken over"))
    }

    /// All four train together, and have taken a step.
    fn wait_until_whole(&mut self) -> Result<(), Failure> {
        self.wait("a world of four", |cluster| {
            let status = cluster.status().ok()?;
            let ranks = status.workers.iter().filter(|worker| worker.rank.is_some()).count();
            (status.phase == PhaseKind::Training && ranks == 4).then_some(())
        })?;
        let before = self.steps();
        self.wait("a step of four", |cluster| (cluster.steps() > before + 1).then_some(()))
    }

    fn status(&self) -> Result<StatusReport, Failure> {
        Ok(wait_for(operator::status(&self.folder.join("runs/recovery")))??)
    }

    fn last_member(&self) -> Result<i32, Failure> {
        let members = self.status()?.workers;
        let mut pids = members.iter().filter(|worker| worker.rank.is_some()).filter_map(|worker| worker.pid);
        pids.next_back().map(u32::cast_signed).ok_or_else(|| Failure::new("the run has no member"))
    }

    /// Steps that were told: lines of the metrics that a step of the training has.
    fn steps(&self) -> usize {
        self.metrics().matches(STEP).count()
    }

    /// Recoveries that were told.
    fn recoveries(&self) -> usize {
        self.metrics().matches(RECOVERED).count()
    }

    /// Whether a generation that came about after so many recoveries has taken a step.
    fn has_stepped_since(&self, recoveries: usize) -> bool {
        let metrics = self.metrics();
        let newest = metrics.rfind(RECOVERED).filter(|_| metrics.matches(RECOVERED).count() > recoveries);
        newest.is_some_and(|at| metrics[at..].contains(STEP))
    }

    fn metrics(&self) -> String {
        fs::read_to_string(self.folder.join("runs/recovery/metrics.jsonl")).unwrap_or_default()
    }

    fn wait(&mut self, what: &str, mut there: impl FnMut(&mut Self) -> Option<()>) -> Result<(), Failure> {
        let begun = Instant::now();
        while there(self).is_none() {
            if begun.elapsed() > PATIENCE {
                let log = self.folder.join("runs/recovery/logs").display().to_string();
                return Err(Failure::new(format!("{what} does not come")).hint(format!("read {log}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn signal(pid: i32, signal: Signal) -> Result<(), Failure> {
    let pid = Pid::from_raw(pid).ok_or_else(|| Failure::new("a process without an id"))?;
    kill_process(pid, signal).map_err(|error| Failure::new(format!("a worker cannot be struck: {error}")))
}
