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
    let begun = Instant::now();
    let mut first = None;
    let (mut slices, mut good, mut faults, mut last_fault) = (0u32, 0u32, 0u32, begun);
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
        // All is warm before the first fault.
        first.get_or_insert_with(|| Census::of(&cluster));
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
    cluster.wait_for_world(2);
    let (first, last) = (first.unwrap(), Census::of(&cluster));
    eprintln!("{faults} faults, goodput {:.1} %, {first:?} then {last:?}", 100.0 * goodput);
    assert!(goodput >= 0.9, "{goodput}");
    assert_eq!(last.processes, first.processes, "processes leak");
    assert!(last.descriptors <= first.descriptors + 8, "descriptors leak: {first:?} then {last:?}");
    assert!(last.resident <= first.resident * 3 / 2, "memory leaks: {first:?} then {last:?}");
    cluster.stop();
}

/// What a cluster holds of its machine: everything that descends from its coordinator and agents.
#[derive(Debug)]
struct Census {
    processes: usize,
    descriptors: usize,
    /// Bytes of memory that are resident.
    resident: u64,
}

impl Census {
    /// Of all processes that run in the cluster's folder, which none of them leaves.
    fn of(cluster: &Cluster) -> Self {
        let folder = cluster.lab.path("").canonicalize().unwrap();
        let mut census = Self { processes: 0, descriptors: 0, resident: 0 };
        for entry in std::fs::read_dir("/proc").unwrap() {
            let place = entry.unwrap().path();
            // A process may end while it is looked at; then it does not count.
            let Ok(works_in) = std::fs::read_link(place.join("cwd")) else { continue };
            let Ok(status) = std::fs::read_to_string(place.join("status")) else { continue };
            if works_in != folder {
                continue;
            }
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kilobytes = resident.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            census.processes += 1;
            census.descriptors += std::fs::read_dir(place.join("fd")).map_or(0, Iterator::count);
            census.resident += 1024 * kilobytes.unwrap_or(0);
        }
        census
    }
}
