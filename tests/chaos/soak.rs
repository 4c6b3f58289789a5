//! Nightly: ten minutes with a random fault every thirty seconds. Most of the time the run gets on, and nothing leaks.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rustix::process::Signal;

use crate::cluster::{Cluster, send};
use crate::{is_nightly, numbers};

const LENGTH: Duration = Duration::from_mins(10);
const BETWEEN_FAULTS: Duration = Duration::from_secs(30);

/// A second in which a step was told is a good one.
const SLICE: Duration = Duration::from_secs(1);

#[test]
fn a_run_under_steady_fire_gets_on_nine_tenths_of_the_time() {
    if !is_nightly() {
        eprintln!("SKIPPED: ten minutes long, so only nightly (LONGTAKE_NIGHTLY=1)");
        return;
    }
    let mut numbers = numbers();
    let mut cluster = Cluster::start(2, 1, "--set cluster.min_workers=1");
    let coordinator = |cluster: &Cluster| cluster.coordinator.as_ref().map(crate::lab::Running::pid);
    let descriptors = |cluster: &Cluster| {
        coordinator(cluster)
            .map_or(0, |pid| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count))
    };
    let (begun, first) = (Instant::now(), descriptors(&cluster));
    let (mut slices, mut good, mut faults, mut last_fault) = (0u32, 0u32, 0u32, Instant::now());
    let mut seen = cluster.steps();
    while begun.elapsed() < LENGTH {
        std::thread::sleep(SLICE);
        let now = cluster.steps();
        slices += 1;
        good += u32::from(now > seen);
        seen = now;
        if last_fault.elapsed() < BETWEEN_FAULTS {
            continue;
        }
        last_fault = Instant::now();
        faults += 1;
        match numbers.random_range(0..4) {
            0 => cluster.members().first().map(|member| send(member.pid, Signal::KILL)).unwrap_or_default(),
            1 => cluster.members().last().map(|member| send(member.pid, Signal::STOP)).unwrap_or_default(),
            2 => {
                cluster.kill_agent(1);
                cluster.start_agent(1);
            }
            _ => {
                cluster.kill_coordinator();
                cluster.start_coordinator();
            }
        }
    }
    let goodput = f64::from(good) / f64::from(slices);
    let last = descriptors(&cluster);
    eprintln!("{faults} faults, goodput {:.1} %, descriptors {first} then {last}", 100.0 * goodput);
    assert!(goodput >= 0.9, "{goodput}");
    assert!(last <= first + 8, "descriptors leak: {first} then {last}");
    cluster.wait_for_world(2);
    cluster.stop();
}
