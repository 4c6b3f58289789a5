//! Planted bugs: each alters what passes between the real cores and the simulated world, and some seed must reveal it.
//!
//! They test the simulator itself. A bug that no seed reveals means that an invariant is missing.

use longtake_coordinator::driver::Input;
use longtake_coordinator::run::event::Event;
use longtake_shared::ids::{Rank, WorkerId};
use longtake_shared::protocol::{AgentCommand, AgentOrder, Identity, Order, WorkerReport};

use crate::world::{Shape, World};

/// A defect of a coordinator, an agent, a worker or the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The store lets a replaced coordinator commit.
    FenceIgnored,
    /// A checkpoint is reported as committed before it is in the chain.
    CommitBeforeDurable,
    /// One checkpoint is committed as two.
    CommittedTwice,
    /// A checkpoint is committed without the parts of its last rank.
    CommitWithoutARank,
    /// Two ranks own the same lane.
    LaneOwnedTwice,
    /// A lane has no owner.
    LaneWithoutOwner,
    /// Two workers have the same rank.
    RankGivenTwice,
    /// A generation has the number of the one before.
    GenerationReused,
    /// A worker obeys orders of an older generation.
    StaleOrderObeyed,
    /// A coordinator accepts reports of an older generation.
    StaleReportAccepted,
    /// The renewals of agents do not extend their leases.
    LeaseNotRenewed,
    /// The step that an abort interrupted counts as taken.
    AbortedStepCounted,
    /// A generation trains as soon as its first rank is ready.
    TrainedBeforeReady,
    /// A lost worker is not replaced.
    MemberNotReplaced,
    /// Orders to abort a generation are lost.
    AbortLost,
    /// A worker that was declared lost is not killed.
    LostWorkerNotKilled,
}

const ALL: [Bug; 16] = [
    Bug::FenceIgnored,
    Bug::CommitBeforeDurable,
    Bug::CommittedTwice,
    Bug::CommitWithoutARank,
    Bug::LaneOwnedTwice,
    Bug::LaneWithoutOwner,
    Bug::RankGivenTwice,
    Bug::GenerationReused,
    Bug::StaleOrderObeyed,
    Bug::StaleReportAccepted,
    Bug::LeaseNotRenewed,
    Bug::AbortedStepCounted,
    Bug::TrainedBeforeReady,
    Bug::MemberNotReplaced,
    Bug::AbortLost,
    Bug::LostWorkerNotKilled,
];

/// Seeds of which one must reveal a bug.
const SEEDS: u64 = 200;

impl World {
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// An order of a coordinator as the bug lets it through.
    pub(crate) fn altered_order(&self, mut order: AgentOrder) -> Option<AgentOrder> {
        match &mut order.command {
            AgentCommand::StartWorker { worker, .. }
                if self.has(Bug::MemberNotReplaced) && is_replacement(worker, &self.shape) =>
            {
                return None;
            }
            AgentCommand::ToWorker { order, .. } => {
                if self.has(Bug::AbortLost) && matches!(order.order, Order::Abort { .. }) {
                    return None;
                }
                if self.has(Bug::RankGivenTwice) && order.identity.rank == Rank(1) {
                    order.identity.rank = Rank(0);
                }
                if self.has(Bug::GenerationReused) && order.identity.generation.0 % 2 == 0 {
                    order.identity.generation.0 -= 1;
                }
                if let Order::Form(formation) = &mut order.order {
                    match (self.bug, &mut formation.lanes[..]) {
                        (Some(Bug::LaneOwnedTwice), [first, second, ..]) => second[0] = first[0],
                        (Some(Bug::LaneWithoutOwner), [first, ..]) => drop(first.pop()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Some(order)
    }

    /// An input of a coordinator as the bug lets it through, perhaps with others before it.
    pub(crate) fn altered_inputs(&self, number: usize, input: Input) -> Vec<Input> {
        let Input::Event(event) = input else { return vec![input] };
        match (self.bug, event) {
            (Some(Bug::LeaseNotRenewed), Event::AgentRenewed { .. }) => Vec::new(),
            (Some(bug), Event::FromWorker { worker, identity, report }) => {
                self.altered_reports(number, bug, worker, identity, report)
            }
            (_, event) => vec![Input::Event(event)],
        }
    }

    fn altered_reports(
        &self,
        number: usize,
        bug: Bug,
        worker: WorkerId,
        mut identity: Identity,
        mut report: WorkerReport,
    ) -> Vec<Input> {
        let mut before = Vec::new();
        let team = self.coordinators[number].core.engine().state().phase.team();
        if let (Bug::StaleReportAccepted, Some(team)) = (bug, team)
            && let Some(rank) = team.rank(&worker)
            && identity.generation < team.generation
        {
            let (run, incarnation, generation) = (identity.run, team.incarnation, team.generation);
            identity = Identity { run, incarnation, generation, rank };
        }
        if let (Bug::TrainedBeforeReady, Some(team), WorkerReport::Ready) = (bug, team, &report) {
            for (rank, member) in (0..).map(Rank).zip(&team.members) {
                let identity = Identity { rank, ..identity.clone() };
                before.push((member.clone(), identity, WorkerReport::Ready));
            }
        }
        if let (Bug::AbortedStepCounted, WorkerReport::Left { kept: Some(kept) }) = (bug, &mut report) {
            kept.step = kept.step.next();
        }
        before.push((worker, identity, report));
        let event = |(worker, identity, report)| Input::Event(Event::FromWorker { worker, identity, report });
        before.into_iter().map(event).collect()
    }
}

/// Whether a process was started in the place of another.
fn is_replacement(worker: &WorkerId, shape: &Shape) -> bool {
    let started = worker.0.rsplit('.').next().and_then(|number| number.parse::<usize>().ok());
    started.is_some_and(|started| started >= shape.workers + shape.spares)
}

/// The first seed that reveals the bug, and the broken invariant.
fn revealed(bug: Bug) -> Option<(u64, String)> {
    (0..SEEDS).find_map(|seed| {
        let played =
            std::panic::catch_unwind(|| crate::play_with(Some(bug), seed, Shape::small(seed), false));
        let panic = played.err()?;
        let text = panic.downcast_ref::<String>().cloned();
        Some((
            seed,
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default(),
        ))
    })
}

#[test]
fn every_planted_bug_is_revealed() {
    let mut hidden = Vec::new();
    for bug in ALL {
        match revealed(bug) {
            Some((seed, invariant)) => {
                let first_line = invariant.lines().next().unwrap_or_default();
                eprintln!("{bug:?} is revealed by seed {seed}: {first_line}");
            }
            None => hidden.push(bug),
        }
    }
    assert!(hidden.is_empty(), "no seed below {SEEDS} reveals {hidden:?}: an invariant is missing");
}
