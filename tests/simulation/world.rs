//! The world: who is there, what is on its way, and what happens next.

use std::collections::BTreeMap;
use std::time::Duration;

use longtake_coordinator::agent::core::AgentInput;
use longtake_coordinator::driver::ChainRequest;
use longtake_coordinator::run::Settings;
use longtake_coordinator::run::phase::Phase;
use longtake_coordinator::updates::Outcome;
use longtake_shared::config::Recovery;
use longtake_shared::ids::{Generation, RunId, WorkerId};
use longtake_shared::protocol::{AgentMessage, AgentOrder, WorkerMessage, WorkerOrder};
use tempfile::TempDir;

use crate::bugs::Bug;
use crate::chain::Chain;
use crate::coordinators::Coordinator;
use crate::faults::Fault;
use crate::judge::Judge;
use crate::nodes::{Link, Node};
use crate::scheduler::{Dice, Scheduler};
use crate::workers::{Crew, Process};

/// How large a cluster is and how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) nodes: usize,
    pub(crate) slots: usize,
    pub(crate) workers: usize,
    pub(crate) fewest: usize,
    pub(crate) spares: usize,
    pub(crate) recovery: Recovery,
    pub(crate) step: Duration,
    pub(crate) faults: usize,
    /// Simulated time in which faults strike.
    pub(crate) faulty: Duration,
    /// Simulated time after the last of them, within which the run must get on.
    pub(crate) calm: Duration,
    /// Messages of an agent may overtake each other: more than a link allows.
    pub(crate) wild: bool,
}

impl Shape {
    pub(crate) const LARGE: Self = Self {
        nodes: 500,
        slots: 4,
        workers: 2_000,
        fewest: 1_500,
        spares: 0,
        recovery: Recovery::Fast,
        step: Duration::from_millis(250),
        faults: 8,
        faulty: Duration::from_secs(40),
        calm: Duration::from_secs(20),
        wild: false,
    };

    pub(crate) fn small(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5eed);
        let nodes = 1 + dice.below(4);
        let slots = 1 + dice.below(4);
        let workers = 1 + dice.below(nodes * slots);
        Self {
            nodes,
            slots,
            workers,
            fewest: 1 + dice.below(workers),
            spares: (nodes * slots - workers).min(dice.below(2)),
            recovery: if dice.one_in(2) { Recovery::Exact } else { Recovery::Fast },
            step: Duration::from_millis(100),
            faults: 4 + dice.below(16),
            faulty: Duration::from_mins(1),
            calm: Duration::from_secs(40),
            wild: dice.one_in(4),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            run: RunId("simulated".into()),
            workers: self.workers,
            fewest: self.fewest,
            spares: self.spares,
            lanes: self.lanes(),
            recovery: self.recovery,
            lease: Duration::from_secs(1),
            gather_timeout: Duration::from_secs(30),
            coordinator_grace: Duration::from_secs(10),
            phase_deadline: Duration::from_secs(3),
            stop_grace: Duration::from_secs(10),
            started_from: None,
        }
    }

    pub(crate) fn lanes(&self) -> usize {
        self.workers + self.workers / 2
    }
}

/// Something that happens at a time. Numbers stand for places in the world's lists.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    CoordinatorTicks(usize),
    CoordinatorStarts,
    /// A message of an agent arrives.
    ToCoordinator {
        link: usize,
        message: AgentMessage,
    },
    /// An order for an agent arrives.
    ToAgent {
        link: usize,
        order: AgentOrder,
    },
    /// The coordinator sees that a link is over.
    LinkOverThere(usize),
    /// The agent sees that a link is over.
    LinkOverHere(usize),
    AgentTicks {
        node: usize,
        life: u64,
    },
    AgentCalls {
        node: usize,
        call: u64,
    },
    NodeStarts(usize),
    WorkerConnects {
        worker: WorkerId,
    },
    ToWorker {
        worker: WorkerId,
        order: WorkerOrder,
    },
    FromWorker {
        worker: WorkerId,
        message: WorkerMessage,
    },
    WorkerReady {
        worker: WorkerId,
        generation: Generation,
    },
    WorkerDies {
        worker: WorkerId,
    },
    Steps(Generation),
    StoreAnswers {
        coordinator: usize,
        request: Box<ChainRequest>,
    },
    Fails(Fault),
    Mends(Fault),
}

impl Happening {
    /// Whether it is worth a line where thousands of workers do the rest.
    fn is_rare(&self) -> bool {
        matches!(
            self,
            Self::Fails(_)
                | Self::Mends(_)
                | Self::CoordinatorStarts
                | Self::NodeStarts(_)
                | Self::LinkOverHere(_)
                | Self::LinkOverThere(_)
                | Self::WorkerDies { .. }
                | Self::Steps(_)
                | Self::StoreAnswers { .. }
        )
    }
}

pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) dice: Dice,
    pub(crate) scheduler: Scheduler<Happening>,
    pub(crate) judge: Judge,
    pub(crate) chain: Chain,
    pub(crate) folder: TempDir,
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Vec<Link>,
    pub(crate) processes: BTreeMap<WorkerId, Process>,
    /// Whose link that is.
    pub(crate) of_link: BTreeMap<u64, WorkerId>,
    pub(crate) crews: BTreeMap<Generation, Crew>,
    /// How long the store takes for a commit.
    pub(crate) store_delay: Duration,
    pub(crate) asked_to_stop: bool,
    /// The bug that is planted.
    pub(crate) bug: Option<Bug>,
    /// Faults so far.
    pub(crate) struck: usize,
    /// When the latest fault began or ended.
    pub(crate) disturbed: Duration,
    /// What the run has ended with.
    pub(crate) outcome: Option<Outcome>,
    trace: blake3::Hasher,
    happenings: u64,
    tell: bool,
}

impl World {
    pub(crate) fn new(bug: Option<Bug>, seed: u64, shape: Shape, tell: bool) -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let mut world = Self {
            shape,
            dice: Dice::new(seed),
            scheduler: Scheduler::new(),
            judge: Judge::default(),
            chain: Chain::default(),
            folder: folder.unwrap(),
            coordinators: Vec::new(),
            nodes: Vec::new(),
            links: Vec::new(),
            processes: BTreeMap::new(),
            of_link: BTreeMap::new(),
            crews: BTreeMap::new(),
            store_delay: Duration::from_millis(20),
            asked_to_stop: false,
            bug,
            struck: 0,
            disturbed: Duration::ZERO,
            outcome: None,
            trace: blake3::Hasher::new(),
            happenings: 0,
            tell,
        };
        world.start_coordinator();
        for node in 0..shape.nodes {
            world.nodes.push(Node::default());
            world.start_node(node);
        }
        world.plan_faults();
        world
    }

    pub(crate) fn now(&self) -> Duration {
        self.scheduler.now
    }

    pub(crate) fn plan(&mut self, after: Duration, happening: Happening) {
        self.scheduler.plan(after, happening);
    }

    pub(crate) fn run_until(&mut self, end: Duration) {
        while let Some(happening) = self.scheduler.next(end) {
            if self.is_over() {
                return;
            }
            self.note(&happening);
            self.happen(happening);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::CoordinatorTicks(coordinator) => self.coordinator_ticks(coordinator),
            Happening::CoordinatorStarts => self.start_coordinator(),
            Happening::ToCoordinator { link, message } => self.coordinator_hears(link, message),
            Happening::ToAgent { link, order } => self.agent_hears(link, order),
            Happening::LinkOverThere(link) => self.coordinator_sees_the_end(link),
            Happening::LinkOverHere(link) => self.agent_sees_the_end(link),
            Happening::AgentTicks { node, life } => self.agent_ticks(node, life),
            Happening::AgentCalls { node, call } => self.agent_calls(node, call),
            Happening::NodeStarts(node) => self.start_node(node),
            Happening::WorkerConnects { worker } => self.worker_connects(&worker),
            Happening::ToWorker { worker, order } => self.worker_hears(&worker, order),
            Happening::FromWorker { worker, message } => self.worker_says_to_agent(&worker, message),
            Happening::WorkerReady { worker, generation } => self.worker_is_ready(&worker, generation),
            Happening::WorkerDies { worker } => self.worker_dies(&worker),
            Happening::Steps(generation) => self.steps(generation),
            Happening::StoreAnswers { coordinator, request } => self.store_answers(coordinator, &request),
            Happening::Fails(fault) => self.fails(fault),
            Happening::Mends(fault) => self.mends(fault),
        }
    }

    /// Every happening is part of the digest: the same seed is the same history, to the byte.
    fn note(&mut self, happening: &Happening) {
        self.happenings += 1;
        let large = self.shape.workers > 64;
        let traced = !large || self.happenings.is_multiple_of(997);
        let told = self.tell && (!large || happening.is_rare());
        if !traced && !told {
            return;
        }
        let line = format!("{:?} {happening:?}\n", self.now());
        if traced {
            self.trace.update(line.as_bytes());
        }
        if told {
            let short: String = line.chars().take(220).collect();
            eprintln!("{}", short.trim_end());
        }
    }

    pub(crate) fn agent_input(&mut self, node: usize, input: AgentInput) {
        let now = self.clock(node);
        let Some(core) = &mut self.nodes[node].core else { return };
        let outputs = core.handle(now, input);
        for output in outputs {
            self.agent_does(node, output);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    /// Whether the current coordinator is ending the run.
    pub(crate) fn is_ending(&self) -> bool {
        let ends = |phase: &Phase| matches!(phase, Phase::Ending { .. } | Phase::Finished { .. });
        self.current().is_some_and(|number| ends(&self.coordinators[number].core.engine().state().phase))
    }

    /// Once nothing fails any more, the coordinator knows every process that runs.
    pub(crate) fn judge_processes(&self) {
        let Some(number) = self.current() else { return };
        let state = self.coordinators[number].core.engine().state();
        for worker in self.processes.keys() {
            assert!(state.is_alive(worker), "{worker} runs although the coordinator has declared it lost");
        }
    }

    pub(crate) fn digest(&self) -> blake3::Hash {
        self.trace.finalize()
    }

    pub(crate) fn happenings(&self) -> u64 {
        self.happenings
    }

    pub(crate) fn describe(&self) -> String {
        let phases = self.coordinators.iter().filter(|coordinator| coordinator.up).map(|coordinator| {
            let state = coordinator.core.engine().state();
            format!(
                "{}: {:?}, {} agents, patience {:?}",
                state.incarnation,
                state.phase,
                state.roster.agents.len(),
                state.progress.patience
            )
        });
        let processes = self.processes.iter().map(|(id, process)| format!("{id}: {process:?}"));
        phases.chain(processes).collect::<Vec<_>>().join("\n")
    }
}
