//! Workers as threads, and a coordinator of a few lines that the tests play.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use longtake_shared::checkpoint::{Manifest, assemble};
use longtake_shared::config::{RunConfig, SynthConfig, load_without_file};
use longtake_shared::ids::{Generation, Incarnation, LaneId, Rank, RunId, Step};
use longtake_shared::protocol::flight::{self, Flight, FlightLog};
use longtake_shared::protocol::{
    Formation, GenerationInputs, Identity, Order, WorkerMessage, WorkerOrder, WorkerReport,
};
use longtake_shared::stop::Stop;
use longtake_shared::units::Seconds;
use tempfile::TempDir;

use crate::collective::{Collective, Fault, Faulty, RingListener};
use crate::control::{Carried, Flags, Kept, LaneMove, SavedParts, SavedStage, Session};
use crate::runtime::serve;
use crate::tensors::NamedTensor;
use crate::train::stages::generation::{Worker, connect};
use crate::train::state::worker_state::State;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a worker held when its run was over.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    pub(super) step: Step,
    pub(super) tensors: Vec<NamedTensor>,
    /// Bytes of the segment of each video: bits, writers and absences.
    pub(super) rows: BTreeMap<(LaneId, u32), Vec<u8>>,
}

struct Seat {
    address: SocketAddr,
    order: Box<dyn Fn(WorkerOrder) + Send>,
    faults: Arc<Mutex<Vec<Fault>>>,
    operation: Arc<Mutex<Option<Operation>>>,
    thread: Option<JoinHandle<Held>>,
}

/// What a test does to a worker between two generations.
type Operation = Box<dyn FnOnce(&mut Worker) + Send>;

/// Numbers by name that were told of each step, its loss among them, without what depends on the clock.
pub(super) type Numbers = BTreeMap<u64, BTreeMap<String, f64>>;

/// A data set of two short videos a lane.
pub(super) struct Videos(TempDir);

impl Videos {
    pub(super) fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let synth = SynthConfig {
            training_videos: 12,
            validation_videos: 1,
            min_duration: Seconds(5.0),
            max_duration: Seconds(6.0),
            width: 32,
            height: 32,
            classes: 2,
            ..SynthConfig::default()
        };
        crate::data::synth::write(&synth, &folder.path().join("data"), &Stop::default(), &mut |_, _| {})
            .unwrap();
        Self(folder)
    }

    /// Zeros the bytes of a video's file from this share of its length on, up to another.
    pub(super) fn tear(&self, id: &str, from: f64, to: f64) {
        let path = self.0.path().join("data/videos").join(format!("{id}.mp4"));
        let mut bytes = std::fs::read(&path).unwrap();
        let place = |share: f64| (share * bytes.len() as f64) as usize;
        let hole = place(from)..place(to);
        bytes[hole].fill(0);
        std::fs::write(path, bytes).unwrap();
    }
}

/// A run's folder, and workers that come and go.
pub(super) struct Crew {
    folder: TempDir,
    pub(super) config: RunConfig,
    settings_json: String,
    seats: BTreeMap<u32, Seat>,
    heard: Receiver<(u32, WorkerMessage)>,
    hear: Sender<(u32, WorkerMessage)>,
    generation: u64,
    members: Vec<u32>,
    /// Members that no order reaches.
    pub(super) deaf: BTreeSet<u32>,
    pub(super) newest: Option<Manifest>,
    saved: BTreeMap<(SavedStage, Step), BTreeMap<Rank, serde_json::Value>>,
    validating: BTreeSet<u32>,
    ready: BTreeSet<u32>,
    failed: BTreeSet<u32>,
    finished: BTreeSet<u32>,
    /// What each worker said when it left the newest generation.
    pub(super) left: BTreeMap<u32, Option<Kept>>,
    /// Steps whose numbers were told.
    pub(super) steps: Vec<u64>,
    pub(super) numbers: Numbers,
    pub(super) warnings: Vec<String>,
}

impl Crew {
    pub(super) fn new(videos: &Videos, mut config: RunConfig, change: impl FnOnce(&mut RunConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = |name: &str| videos.0.path().join("data").join(name).to_string_lossy().into_owned();
        config.data.annotations = text("annotations.json");
        config.data.videos = text("");
        config.data.fps = 15.0;
        config.train.lanes = 6;
        config.train.max_steps = 7;
        config.train.validate_every = 0;
        config.checkpoint.every = 1;
        config.checkpoint.interval = Seconds(0.0);
        config.cluster.digest_every = 1;
        change(&mut config);
        let mut resolved = load_without_file(std::iter::empty(), &[]).unwrap();
        resolved.config = config.clone();
        let (hear, heard) = channel();
        Self {
            folder,
            config,
            settings_json: resolved.to_json(),
            seats: BTreeMap::new(),
            heard,
            hear,
            generation: 0,
            members: Vec::new(),
            deaf: BTreeSet::new(),
            newest: None,
            saved: BTreeMap::new(),
            validating: BTreeSet::new(),
            ready: BTreeSet::new(),
            failed: BTreeSet::new(),
            finished: BTreeSet::new(),
            left: BTreeMap::new(),
            steps: Vec::new(),
            numbers: Numbers::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn run_folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Starts workers that have no process yet.
    fn hire(&mut self, members: &[u32]) {
        for &index in members {
            if self.seats.contains_key(&index) {
                continue;
            }
            let loopback = "127.0.0.1:0".parse().unwrap();
            let (listener, address) = RingListener::bind(loopback).unwrap();
            let (session, mut line) = Session::detached(self.folder.path(), index);
            let order = Box::new(line.orders());
            let hear = self.hear.clone();
            std::thread::spawn(move || {
                while let Some(message) = line.hear() {
                    if hear.send((index, message)).is_err() {
                        return;
                    }
                }
            });
            let faults: Arc<Mutex<Vec<Fault>>> = Arc::default();
            let due = Arc::clone(&faults);
            let operation: Arc<Mutex<Option<Operation>>> = Arc::default();
            let ordered = Arc::clone(&operation);
            let thread = std::thread::spawn(move || {
                let session = Arc::new(session);
                let reach = move |assignment: &_, aborter| {
                    let collective = connect(&listener, assignment, aborter)?;
                    let faults = std::mem::take(&mut *due.lock().unwrap());
                    Ok(Box::new(Faulty::new(collective, faults)) as Box<dyn Collective>)
                };
                let mut worker = Worker::new(Arc::clone(&session), index, Box::new(reach));
                loop {
                    serve(&session, &mut worker).unwrap();
                    let due = ordered.lock().unwrap().take();
                    let Some(operation) = due else { return held(&worker) };
                    operation(&mut worker);
                }
            });
            self.seats.insert(index, Seat { address, order, faults, operation, thread: Some(thread) });
        }
    }

    /// Injects a fault into the next generation that the worker of that rank is in.
    pub(super) fn inject(&mut self, members: &[u32], fault: Fault) {
        self.hire(members);
        for seat in self.seats.values() {
            seat.faults.lock().unwrap().push(fault);
        }
    }

    /// Does something to a worker that has left its generation, and gives what comes of it.
    pub(super) fn operate<R: Send + 'static>(
        &self,
        index: u32,
        operation: impl FnOnce(&mut Worker) -> R + Send + 'static,
    ) -> R {
        let (done, wait) = channel();
        let operation = move |worker: &mut Worker| {
            done.send(operation(worker)).unwrap();
        };
        *self.seats[&index].operation.lock().unwrap() = Some(Box::new(operation));
        self.tell_one(index, 0, Order::Shutdown);
        wait.recv_timeout(PATIENCE).unwrap()
    }

    /// Forms a generation; lanes are dealt round the ranks, from the rank `turn` on.
    pub(super) fn form(&mut self, members: &[u32], turn: usize, carry: bool) {
        self.hire(members);
        let world = members.len();
        let mut lanes = vec![Vec::new(); world];
        for lane in 0..self.config.train.lanes {
            lanes[(lane + turn) % world].push(LaneId(lane as u32));
        }
        let carried = carry.then(|| self.plan(members, &lanes));
        self.generation += 1;
        self.members = members.to_vec();
        for set in [&mut self.ready, &mut self.failed, &mut self.finished, &mut self.validating] {
            set.clear();
        }
        self.left.clear();
        self.saved.clear();
        let peers = members.iter().map(|index| self.seats[index].address).collect();
        self.tell(&Order::Form(Formation { peers, lanes, carried }));
    }

    /// What a coordinator makes of what its workers said when they left.
    fn plan(&self, members: &[u32], lanes: &[Vec<LaneId>]) -> Carried {
        let kept: Vec<Option<&Kept>> =
            members.iter().map(|index| self.left.get(index).and_then(Option::as_ref)).collect();
        let at = |kept: &Kept| (kept.stage, kept.step);
        let (stage, step) = kept.iter().flatten().map(|kept| at(kept)).max().unwrap();
        let ranks = || (0u32..).map(Rank).zip(&kept);
        let has = |kept: Option<&Kept>| kept.is_some_and(|kept| at(kept) == (stage, step));
        let holder = ranks().find(|(_, kept)| has(**kept)).unwrap().0;
        let behind = ranks().filter(|(_, kept)| !has(**kept)).map(|(rank, _)| rank).collect();
        let mut moves = Vec::new();
        for (owner, lanes) in ranks().map(|(rank, _)| rank).zip(lanes) {
            for &lane in lanes {
                let holds = |kept: Option<&Kept>| kept.is_some_and(|kept| kept.lanes.contains(&lane));
                let copies = |kept: Option<&Kept>| kept.is_some_and(|kept| kept.copies.contains(&lane));
                if holds(kept[owner.index()]) {
                    continue;
                }
                if let Some((from, _)) = ranks().find(|(_, kept)| holds(**kept)) {
                    moves.push(LaneMove { lane, from, copy: false });
                } else if let Some((from, _)) = ranks().find(|(_, kept)| copies(**kept)) {
                    moves.push(LaneMove { lane, from, copy: true });
                }
            }
        }
        Carried { stage, step, holder, behind, moves }
    }

    fn tell(&self, order: &Order) {
        for (rank, index) in (0u32..).zip(&self.members) {
            if !self.deaf.contains(index) {
                self.tell_one(*index, rank, order.clone());
            }
        }
    }

    fn tell_one(&self, index: u32, rank: u32, order: Order) {
        let identity = Identity {
            run: RunId("run".into()),
            incarnation: Incarnation(1),
            generation: Generation(self.generation),
            rank: Rank(rank),
        };
        let inputs = || GenerationInputs {
            run_folder: self.run_folder().to_string_lossy().into_owned(),
            settings_json: self.settings_json.clone(),
            resume_json: self.newest.as_ref().map(|newest| serde_json::to_string(newest).unwrap()),
        };
        let inputs = matches!(order, Order::Form(_)).then(|| Arc::new(inputs()));
        (self.seats[&index].order)(WorkerOrder { identity, order, inputs });
    }

    /// Listens until something has come about.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let heard = self.heard.recv_timeout(PATIENCE);
            let (index, message) = heard.unwrap_or_else(|error| panic!("waiting for {what}: {error}"));
            self.take(index, message);
        }
    }

    fn take(&mut self, index: u32, message: WorkerMessage) {
        let WorkerMessage::Report { identity, report } = message else { return };
        match report {
            WorkerReport::Warning(text) => self.warnings.push(text),
            WorkerReport::Failed { message, .. } => panic!("worker {index} failed: {message}"),
            _ if identity.generation != Generation(self.generation) => {}
            WorkerReport::Ready => drop(self.ready.insert(index)),
            WorkerReport::CollectiveFailed { .. } => drop(self.failed.insert(index)),
            WorkerReport::Finished { .. } => drop(self.finished.insert(index)),
            WorkerReport::Progress(progress) if progress.loss.is_some() => {
                self.steps.push(progress.done);
                let mut numbers = progress.numbers;
                numbers.remove("clips_per_second");
                numbers.extend(progress.loss.map(|loss| ("loss".to_owned(), loss)));
                self.numbers.insert(progress.done, numbers);
            }
            WorkerReport::Left { kept } => drop(self.left.insert(index, kept)),
            WorkerReport::ValidationDone { step } => {
                self.validating.insert(index);
                if self.validating.len() == self.members.len() {
                    self.validating.clear();
                    self.tell(&Order::Validated { step, average_map: 0.25, best: true });
                }
            }
            WorkerReport::PartsSaved(saved) => self.saved(identity.rank, saved),
            WorkerReport::Progress(_) | WorkerReport::Detections(_) => {}
        }
    }

    fn saved(&mut self, rank: Rank, saved: SavedParts) {
        let SavedParts { stage, step, parts, .. } = saved;
        let reports = self.saved.entry((stage, step)).or_default();
        reports.insert(rank, parts);
        if reports.len() == self.members.len() {
            let reports: Vec<_> = reports.values().cloned().collect();
            self.newest = Some(assemble(&reports).unwrap());
            self.tell(&Order::Committed { stage, step, sequence: self.generation });
        }
    }

    pub(super) fn until_ready(&mut self) {
        self.until("all to be ready", |crew| crew.ready.len() == crew.members.len());
    }

    /// Listens until all are ready, or a collective has failed.
    pub(super) fn until_ready_or_failed(&mut self) {
        self.until("all to be ready", |crew| crew.ready.len() == crew.members.len() || crew.has_failed());
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Lets a generation train; its first step sees these wishes.
    pub(super) fn train(&mut self, wishes: Flags) {
        self.until_ready();
        self.wish(wishes);
        self.tell(&Order::Train);
    }

    /// Tells all members what an operator wishes.
    pub(super) fn wish(&self, wishes: Flags) {
        self.tell(&Order::SetFlags(wishes));
    }

    /// What the flight recorder of a worker holds.
    pub(super) fn flight(&self, index: u32) -> Flight {
        FlightLog::open(&flight::path(self.folder.path(), index)).unwrap().read().unwrap()
    }

    pub(super) fn until_left(&mut self) {
        self.until("all to leave", |crew| crew.left.len() + crew.deaf.len() == crew.members.len());
    }

    /// Listens until a step was told that many steps have followed.
    pub(super) fn until_step(&mut self, step: u64) {
        self.until("a step", |crew| crew.steps.last().is_some_and(|done| *done >= step));
    }

    pub(super) fn until_committed(&mut self, step: u64) {
        self.until("a checkpoint", |crew| {
            crew.newest
                .as_ref()
                .is_some_and(|newest| newest.stage == SavedStage::Train && newest.step >= Step(step))
        });
    }

    pub(super) fn until_finished(&mut self) {
        self.until("the end", |crew| crew.finished.len() == crew.members.len());
    }

    /// Listens until a collective has failed somewhere, or the run is done; gives whether it failed.
    pub(super) fn until_failed_or_finished(&mut self) -> bool {
        self.until("a failure", |crew| !crew.failed.is_empty() || crew.finished.len() == crew.members.len());
        !self.failed.is_empty()
    }

    /// Listens until every member has failed too, is done, or waits for an order: how far each has come is then settled.
    pub(super) fn until_all_stand(&mut self) {
        self.until("all to stand", |crew| {
            let stands =
                |who| [&crew.failed, &crew.finished, &crew.validating].iter().any(|set| set.contains(who));
            crew.members.iter().all(stands)
        });
    }

    pub(super) fn abort(&mut self) {
        self.tell(&Order::Abort { reason: "a test says so".into() });
        self.until_left();
    }

    /// Ends workers; what each of them held.
    pub(super) fn dismiss(&mut self, who: &[u32]) -> BTreeMap<u32, Held> {
        for index in who {
            self.tell_one(*index, 0, Order::Shutdown);
        }
        who.iter()
            .map(|index| {
                let mut seat = self.seats.remove(index).unwrap();
                (*index, seat.thread.take().unwrap().join().unwrap())
            })
            .collect()
    }

    /// Ends all workers.
    pub(super) fn end(&mut self) -> BTreeMap<u32, Held> {
        let all: Vec<u32> = self.seats.keys().copied().collect();
        self.dismiss(&all)
    }
}

fn held(worker: &Worker) -> Held {
    let (step, tensors) = match worker.worker_state.state.as_ref().unwrap() {
        State::Pretrain(state) => (state.learner.step, state.learner.tensors()),
        State::Train(state) => (state.learner.step, state.learner.tensors()),
    };
    let mut rows = BTreeMap::new();
    if let Some(memory) = &worker.worker_state.memory {
        let snapshot = memory.store.snapshot(&memory.held()).unwrap();
        for segment in snapshot.segments(1) {
            let segment = segment.unwrap();
            rows.insert((segment.lane, segment.videos[0].0), segment.bytes.to_vec());
        }
    }
    Held { step, tensors, rows }
}
