//! From a fault to the next step that is done: real processes, killed, stopped and starved by their ids.

use std::path::Path;
use std::time::{Duration, Instant};

use longtake_shared::bench::{Count, Findings, Row, Times};
use longtake_shared::hint::Failure;
use rustix::process::Signal;

use super::cluster::{Cluster, signal};
use super::hang;
use super::told::Fate;
use crate::run::phase::PhaseKind;
use crate::worker_role::WorkerRole;

/// Faults of a kind that takes seconds to be survived.
const FEW: usize = 20;

/// Faults of a kind that takes less than a second.
const MANY: usize = 100;

/// Strikes a run of four workers on two nodes.
pub(super) fn measure(folder: &Path, worker: WorkerRole) -> Result<Findings, Failure> {
    let mut cluster = Cluster::start(folder, worker, &["checkpoint.every=0", "checkpoint.interval=5"])?;
    let mut rows = vec![
        strike(&mut cluster, "worker killed -> next step", MANY, |cluster, run| {
            signal(&cluster.member(run)?, Signal::KILL)
        })?,
        strike(&mut cluster, "worker stopped, its lease runs out -> next step", FEW, |cluster, run| {
            signal(&cluster.member(run)?, Signal::STOP)
        })?,
        strike(&mut cluster, "node lost -> next step", FEW, Cluster::lose_node)?,
    ];
    rows.extend(hang(&mut cluster)?);
    let (restarts, counts) = restart(&mut cluster)?;
    rows.extend(restarts);
    Ok(Findings { rows, counts })
}

fn strike(
    cluster: &mut Cluster,
    name: &str,
    runs: usize,
    mut fault: impl FnMut(&mut Cluster, usize) -> Result<(), Failure>,
) -> Result<Row, Failure> {
    let mut times = Times::default();
    for run in 0..runs {
        cluster.wait_until_whole()?;
        let (before, begun) = (cluster.told()?.recoveries.len(), Instant::now());
        fault(cluster, run)?;
        cluster.wait("the next step", |cluster| Ok(cluster.told()?.has_stepped_since(before)))?;
        times.push(begun.elapsed());
    }
    Ok(times.row(name))
}

/// Lets workers hang that live. What nobody could notice as a hang is tried again, as often as there are runs.
fn hang(cluster: &mut Cluster) -> Result<[Row; 2], Failure> {
    let (mut noticed, mut deadlines, mut p99) = (Times::default(), Times::default(), Times::default());
    let mut hangs = 0;
    for run in 0..2 * FEW {
        cluster.wait_until_whole()?;
        let Some(hang) = hang::strike(cluster, run)? else { continue };
        noticed.push(hang.noticed);
        deadlines.push(Duration::from_secs(1) + 5 * hang.expected.p99);
        p99.push(hang.expected.p99);
        hangs += 1;
        if hangs == FEW {
            break;
        }
    }
    Ok([
        noticed.row_within(
            "worker lives and hangs in a phase (replay) -> its coordinator knows",
            "1 s + 5 x p99 of the phase",
            &deadlines,
        ),
        p99.row("p99 of that phase, as its agent had learned it"),
    ])
}

/// Kills the coordinator: training goes on, the next one takes over and hears of every step.
fn restart(cluster: &mut Cluster) -> Result<([Row; 2], Vec<Count>), Failure> {
    let (mut back, mut stepped) = (Times::default(), Times::default());
    cluster.wait_until_whole()?;
    // From the newest generation on: its first step may be the last of the one before, told again.
    let (recoveries, first) = {
        let recoveries = &cluster.told()?.recoveries;
        (recoveries.len(), recoveries.last().map_or(0, |newest| newest.steps_before + 1))
    };
    for _ in 0..MANY {
        cluster.wait_until_whole()?;
        let begun = Instant::now();
        cluster.lose_coordinator()?;
        cluster.wait("the next coordinator", |cluster| {
            Ok(cluster.status().is_ok_and(|status| status.phase == PhaseKind::Training))
        })?;
        back.push(begun.elapsed());
        cluster.wait_for_steps(1)?;
        stepped.push(begun.elapsed());
        if cluster.told.recoveries.len() > recoveries {
            return Err(Failure::new("a generation ended when only the coordinator was killed"));
        }
    }
    let fate = Fate::of(&cluster.told.steps[first..]);
    let count = |name: &str, count| Count { name: name.into(), count, steps: fate.steps };
    Ok((
        [
            back.row("coordinator killed -> the next one has taken over"),
            stepped.row("coordinator killed -> the next one has told a step"),
        ],
        vec![
            count("coordinator killed: steps lost", fate.lost),
            count("coordinator killed: steps told twice", fate.repeated),
        ],
    ))
}
