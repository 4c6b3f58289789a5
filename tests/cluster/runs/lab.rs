//! A folder to run the real program in, what the program said there, and what it left behind.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use longtake_shared::checkpoint::Manifest;
use longtake_shared::protocol::SavedStage;
use longtake_shared::random::Key;
use longtake_tests::Said;
use rand_chacha::ChaCha8Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;

/// Longer than anything here takes on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

const PROGRAM: &str = env!("CARGO_BIN_EXE_longtake-under-test");

/// Looks again and again until there is an answer, for [`DEADLINE`] at most.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The videos of `tiny.toml`, made once for each build of the program.
fn data() -> &'static Path {
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    DATA.get_or_init(|| {
        let built = fs::metadata(PROGRAM).unwrap().modified().unwrap();
        let built = built.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tiny-{built}"));
        if !data.exists() {
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            fs::write(folder.path().join("tiny.toml"), include_str!("tiny.toml")).unwrap();
            let lab = Lab { folder, calls: AtomicUsize::new(0), variables: Vec::new() };
            // A run that has nothing to train makes the data that its settings describe.
            let said = lab.run("train tiny.toml --set train.lanes=5 --set cluster.workers=1");
            assert_eq!(said.code, Some(78), "{said:?}");
            // Another process of this suite may have been faster.
            drop(fs::rename(lab.path("data"), &data));
            assert!(data.join("annotations.json").exists());
        }
        data
    })
}

/// A folder with `tiny.toml` and its data, removed in the end.
pub(crate) struct Lab {
    folder: TempDir,
    calls: AtomicUsize,
    /// Of the program's environment, beside `PATH`.
    variables: Vec<(String, String)>,
}

impl Lab {
    /// With the data that all tests share: not to be changed.
    pub(crate) fn new() -> Self {
        let lab = Self::without_data();
        symlink(data(), lab.path("data")).unwrap();
        lab
    }

    /// Whose first run makes its own data.
    pub(crate) fn fresh() -> Self {
        Self::without_data()
    }

    /// With data of its own.
    pub(crate) fn with_own_data() -> Self {
        let lab = Self::without_data();
        fs::create_dir_all(lab.path("data/videos")).unwrap();
        fs::copy(data().join("annotations.json"), lab.path("data/annotations.json")).unwrap();
        for video in fs::read_dir(data().join("videos")).unwrap() {
            let video = video.unwrap();
            fs::copy(video.path(), lab.path("data/videos").join(video.file_name())).unwrap();
        }
        lab
    }

    fn without_data() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tiny.toml"), include_str!("tiny.toml")).unwrap();
        Self { folder, calls: AtomicUsize::new(0), variables: Vec::new() }
    }

    /// Whose program finds these variables in its environment.
    pub(crate) fn with_variables(self, variables: Vec<(String, String)>) -> Self {
        Self { variables, ..self }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Starts `longtake` with these words, split at blanks.
    pub(crate) fn start(&self, words: &str) -> Running {
        self.start_command(Command::new(PROGRAM), words)
    }

    /// The same in a process group of its own, as a shell starts it.
    pub(crate) fn start_as_group(&self, words: &str) -> Running {
        let mut command = Command::new(PROGRAM);
        command.process_group(0);
        self.start_command(command, words)
    }

    /// The same as `nohup` starts it.
    pub(crate) fn start_with_nohup(&self, words: &str) -> Running {
        let mut command = Command::new("nohup");
        command.arg(PROGRAM);
        self.start_command(command, words)
    }

    /// The same in a network namespace.
    pub(crate) fn start_in(&self, space: &str, words: &str) -> Running {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space, PROGRAM]);
        self.start_command(command, words)
    }

    /// Starts `longtake` with the programs of a folder before those of the same name elsewhere on PATH.
    pub(crate) fn start_before(&self, programs: &Path, words: &str) -> Running {
        let mut path = programs.as_os_str().to_owned();
        if let Some(others) = std::env::var_os("PATH") {
            path.push(":");
            path.push(others);
        }
        let mut command = Command::new("env");
        let mut assignment = OsString::from("PATH=");
        assignment.push(path);
        command.arg(assignment).arg(PROGRAM);
        self.start_command(command, words)
    }

    /// The same to the end.
    pub(crate) fn run_in(&self, space: &str, words: &str) -> Said {
        self.start_in(space, words).end()
    }

    fn start_command(&self, mut command: Command, words: &str) -> Running {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let (stdout, stderr) =
            (self.path(&format!("call-{call}.out")), self.path(&format!("call-{call}.err")));
        let child = command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .args(words.split_whitespace())
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Running { child, stdout, stderr, folder: self.folder.path().to_owned() }
    }

    /// The same to the end.
    pub(crate) fn run(&self, words: &str) -> Said {
        self.start(words).end()
    }

    /// Trains `tiny.toml` to its end, with more words behind.
    pub(crate) fn train(&self, words: &str) -> Said {
        let said = self.run(&format!("train tiny.toml {words}"));
        assert_eq!(said.code, Some(0), "{said:?}");
        said
    }

    /// The steps that `metrics.jsonl` tells; of a step that was done twice, the last.
    pub(crate) fn steps(&self) -> Steps {
        self.progress().into_iter().collect()
    }

    /// Every step that `metrics.jsonl` tells, in its order.
    pub(crate) fn progress(&self) -> Vec<((String, u64), serde_json::Value)> {
        self.metrics()
            .into_iter()
            .filter(|line| line["event"] == "progress" && line["loss"].is_number())
            .map(|mut line| {
                // What depends on the clock.
                line["numbers"].as_object_mut().unwrap().remove("clips_per_second");
                let key = (line["stage"].as_str().unwrap().to_owned(), line["done"].as_u64().unwrap());
                (key, serde_json::json!({ "loss": line["loss"], "numbers": line["numbers"] }))
            })
            .collect()
    }

    /// Steps that were validated, with their average mAP; the last of each counts.
    pub(crate) fn validations(&self) -> BTreeMap<u64, f64> {
        let metrics = self.metrics().into_iter().filter(|line| line["event"] == "validated");
        metrics.map(|line| (line["step"].as_u64().unwrap(), line["average_map"].as_f64().unwrap())).collect()
    }

    /// Every line of `metrics.jsonl`.
    pub(crate) fn metrics(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path("runs/tiny/metrics.jsonl")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until a stage has come to a step, or the process to its end.
    pub(crate) fn wait_for_step(&self, running: &mut Running, stage: &str, step: u64) {
        until(&format!("step {step} of {stage}"), || {
            let there = self.progress().iter().any(|((at, done), _)| at == stage && *done >= step);
            (there || running.has_ended()).then_some(())
        });
    }

    /// Waits until the numbers of a step are as wished, or the process has ended.
    pub(crate) fn wait_for_numbers(
        &self,
        running: &mut Running,
        what: &str,
        wished: impl Fn(&serde_json::Value) -> bool,
    ) {
        until(what, || {
            let there = self.progress().iter().any(|(_, told)| wished(&told["numbers"]));
            (there || running.has_ended()).then_some(())
        });
    }

    /// The newest manifest.
    pub(crate) fn newest(&self) -> Manifest {
        let order =
            |manifest: &Manifest| (manifest.stage == SavedStage::Train, manifest.step, manifest.generation);
        self.manifests().into_iter().max_by_key(order).unwrap()
    }

    /// The manifests of all checkpoints that are kept.
    pub(crate) fn manifests(&self) -> Vec<Manifest> {
        let folders = fs::read_dir(self.path("runs/tiny/checkpoints")).unwrap();
        // A checkpoint that was swept leaves its folder.
        let manifests = folders.filter_map(|folder| {
            let text = fs::read(folder.unwrap().path().join("manifest.json")).ok()?;
            Some(serde_json::from_slice::<Manifest>(&text).unwrap())
        });
        manifests.collect()
    }

    /// What the newest checkpoint holds.
    pub(crate) fn parts(&self) -> Vec<String> {
        content(&self.newest())
    }

    /// What the first worker of the running run was given after a word of its command line.
    pub(crate) fn worker_argument(&self, word: &str) -> PathBuf {
        let pid = self.workers()[0].pid;
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap();
        let words: Vec<&str> =
            line.split(|byte| *byte == 0).map(|word| str::from_utf8(word).unwrap()).collect();
        PathBuf::from(words[words.iter().position(|known| *known == word).unwrap() + 1])
    }

    /// Processes of the running run's workers, by handles that stay theirs.
    pub(crate) fn workers(&self) -> Vec<Process> {
        let said = self.run("status runs/tiny --json");
        let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        report["workers"]
            .as_array()
            .unwrap()
            .iter()
            // One may have ended since the status was told.
            .filter_map(|worker| Process::of(worker["pid"].as_i64()?))
            .collect()
    }
}

/// What a checkpoint holds, field by field: hashes of its parts, counters, what the optimizer knows, lanes, conditions. Left out
/// is who saved it: that may differ between two runs that are the same.
pub(crate) fn content(manifest: &Manifest) -> Vec<String> {
    let mut fields = serde_json::to_value(manifest).unwrap();
    let fields = fields.as_object_mut().unwrap();
    for who in ["incarnation", "generation", "world_size"] {
        assert!(fields.remove(who).is_some(), "{who}");
    }
    for lane in fields["lanes"].as_array_mut().unwrap() {
        lane.as_object_mut().unwrap().remove("rank");
    }
    fields.iter().map(|(name, value)| format!("{name}: {value}")).collect()
}

/// Numbers that differ from run to run of a suite, and are told where it fails.
pub(crate) fn numbers() -> ChaCha8Rng {
    let chosen = std::env::var("LONGTAKE_CHAOS").ok().and_then(|seed| seed.parse().ok());
    let seed = chosen.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    eprintln!("LONGTAKE_CHAOS={seed} draws the same numbers");
    Key::root(seed).rng()
}

/// Stage and step to what was told of it.
pub(crate) type Steps = BTreeMap<(String, u64), serde_json::Value>;

/// A process that is watched.
pub(crate) struct Process {
    pub(crate) pid: Pid,
    handle: OwnedFd,
}

impl Process {
    /// The process of that number, unless it has ended and its parent knows.
    pub(crate) fn of(pid: i64) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Some(Self { pid, handle }),
            Err(Errno::SRCH) => None,
            Err(error) => panic!("process {pid:?}: {error}"),
        }
    }

    /// Whether it ends within this time.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let mut polled = [PollFd::new(&self.handle, PollFlags::IN)];
        let timeout = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
        poll(&mut polled, Some(&timeout)).unwrap() == 1
    }
}

/// The program while it runs; killed where a test ends before it.
pub(crate) struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    folder: PathBuf,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Said {
        let status: ExitStatus = until("the end of the program", || self.child.try_wait().unwrap());
        let text = |path: &Path| {
            let text = fs::read_to_string(path).unwrap();
            text.replace(&self.folder.display().to_string(), "[FOLDER]")
        };
        Said { code: status.code(), stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal(Signal::KILL);
            self.child.wait().unwrap();
        }
    }
}
