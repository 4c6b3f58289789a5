//! Control groups of the kernel that a test puts processes or threads into; gone with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;

use crate::lab::until;

/// A group of its own below another one.
struct Group {
    path: PathBuf,
    parent: PathBuf,
}

impl Group {
    /// Nothing where this process may not make one.
    fn make(parent: &Path, name: &str) -> Option<Self> {
        let path = parent.join(name);
        fs::create_dir(&path).ok()?;
        Some(Self { path, parent: parent.to_owned() })
    }

    fn set(&self, file: &str, value: &str) -> std::io::Result<()> {
        fs::write(self.path.join(file), value)
    }

    /// A number that stands behind its name in a file of the group.
    fn count(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(self.path.join(file)).unwrap();
        let mut words = text.lines().filter_map(|line| line.split_once(' '));
        words.find_map(|(known, count)| (known == name).then(|| count.parse().unwrap())).unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Of a group of threads nobody can be read: who moved its process here moves it out.
        let left = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        for process in left.lines() {
            // It may have ended meanwhile.
            let _ = fs::write(self.parent.join("cgroup.procs"), process);
        }
        // A killed process leaves its group a little after its death. What stays is empty and holds nobody up.
        for _ in 0..1000 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A name that no other group has.
fn name(pid: Pid) -> String {
    format!("longtake-chaos-{}", pid.as_raw_nonzero())
}

/// Where the kernel has its unified hierarchy, and, in its first version, that of memory.
fn mounts() -> Vec<(String, PathBuf, String)> {
    let text = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mount = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        Some(((*words.get(2)?).to_owned(), PathBuf::from(words.get(1)?), (*words.get(3)?).to_owned()))
    };
    text.lines().filter_map(mount).collect()
}

fn unified() -> Option<PathBuf> {
    mounts().into_iter().find_map(|(kind, place, _)| (kind == "cgroup2").then_some(place))
}

/// Far below what any process needs.
const TOO_LITTLE_BYTES: &str = "65536";

/// A group that has no memory for the process in it: the kernel's killer comes at its next page.
pub(crate) struct OutOfMemory {
    group: Group,
    events: &'static str,
}

impl OutOfMemory {
    /// Nothing, and told so, where this process may not limit memory.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        let starved = Self::first_version(pid).or_else(|| Self::second_version(pid));
        if starved.is_none() {
            eprintln!("SKIPPED: this process may not limit memory, so none ran out");
        }
        starved
    }

    fn first_version(pid: Pid) -> Option<Self> {
        let has_memory = |options: &str| options.split(',').any(|option| option == "memory");
        let place = mounts()
            .into_iter()
            .find_map(|(kind, place, options)| (kind == "cgroup" && has_memory(&options)).then_some(place))?;
        let group = Group::make(&place, &name(pid))?;
        group.set("memory.limit_in_bytes", TOO_LITTLE_BYTES).ok()?;
        // What can be moved to a disk would only be slow.
        group.set("memory.swappiness", "0").ok()?;
        group.set("cgroup.procs", &pid.as_raw_nonzero().to_string()).ok()?;
        Some(Self { group, events: "memory.oom_control" })
    }

    fn second_version(pid: Pid) -> Option<Self> {
        let place = unified()?;
        fs::write(place.join("cgroup.subtree_control"), "+memory").ok()?;
        let group = Group::make(&place, &name(pid))?;
        group.set("memory.max", TOO_LITTLE_BYTES).ok()?;
        // A kernel without swap has no such file.
        let _ = group.set("memory.swap.max", "0");
        group.set("cgroup.procs", &pid.as_raw_nonzero().to_string()).ok()?;
        Some(Self { group, events: "memory.events" })
    }

    /// Processes that the kernel has killed in it.
    pub(crate) fn kills(&self) -> u64 {
        self.group.count(self.events, "oom_kill")
    }
}

/// The first thread of a process in a group that can be frozen, while its other threads go on.
pub(crate) struct Freezer {
    pid: Pid,
    // Dropped in this order: a group with another one in it cannot go.
    thread: Group,
    process: Group,
}

impl Freezer {
    /// Nothing, and told so, where this process may not freeze.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        let freezer = Self::make(pid);
        if freezer.is_none() {
            eprintln!("SKIPPED: this process may not freeze single threads, so none was");
        }
        freezer
    }

    fn make(pid: Pid) -> Option<Self> {
        let process = Group::make(&unified()?, &name(pid))?;
        let thread = Group::make(&process.path, "thread")?;
        let number = pid.as_raw_nonzero().to_string();
        process.set("cgroup.procs", &number).ok()?;
        thread.set("cgroup.type", "threaded").ok()?;
        // The first thread has the number of its process.
        thread.set("cgroup.threads", &number).ok()?;
        Some(Self { pid, thread, process })
    }

    /// The thread stands still when this returns.
    pub(crate) fn freeze(&self) {
        self.thread.set("cgroup.freeze", "1").unwrap();
        until("the frozen thread", || (self.thread.count("cgroup.events", "frozen") == 1).then_some(()));
    }

    pub(crate) fn thaw(&self) {
        self.thread.set("cgroup.freeze", "0").unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        // With all its threads, which go on; nobody is there any more where the test went well.
        let _ = self.thread.set("cgroup.freeze", "0");
        let out = self.process.parent.join("cgroup.procs");
        let _ = fs::write(out, self.pid.as_raw_nonzero().to_string());
    }
}
