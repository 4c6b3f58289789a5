//! What fails in a history, and when it is mended.

use std::time::Duration;

use longtake_coordinator::driver::Input;
use longtake_coordinator::run::event::{Event, StopSource};
use longtake_shared::ids::WorkerId;

use crate::world::{Happening, World};

/// One thing that fails. Numbers are rolled when it happens, so that they always hit something.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    WorkerCrash(u64),
    WorkerFreeze(u64),
    Thaw(WorkerId),
    NodeCrash(usize),
    NodeCut(usize),
    RingCut(usize),
    LinkBreak(usize),
    AgentPause(usize),
    CoordinatorCrash,
    CoordinatorPause,
    /// A machine slept, and its clock did not: all at once it is later there.
    NodeClock(usize),
    /// The same of the coordinator's machine.
    CoordinatorClock,
    SlowStore,
    /// The newest checkpoint is damaged.
    Damage,
    Stop,
}

impl World {
    pub(crate) fn plan_faults(&mut self) {
        let last = self.shape.faulty.as_millis() as u64 - 2_000;
        for _ in 0..self.shape.faults {
            let at = self.dice.millis(500, last);
            let node = self.dice.below(self.shape.nodes);
            let number = self.dice.below(1 << 30) as u64;
            let fault = match self.dice.below(29) {
                0..=5 => Fault::WorkerCrash(number),
                6..=7 => Fault::WorkerFreeze(number),
                8..=9 => Fault::NodeCrash(node),
                10..=11 => Fault::NodeCut(node),
                12 => Fault::RingCut(node),
                13..=14 => Fault::LinkBreak(node),
                15 => Fault::AgentPause(node),
                16..=18 => Fault::CoordinatorCrash,
                19 => Fault::CoordinatorPause,
                20..=22 => Fault::SlowStore,
                23..=24 => Fault::Damage,
                25..=26 => Fault::NodeClock(node),
                27 => Fault::CoordinatorClock,
                _ if number.is_multiple_of(8) => Fault::Stop,
                _ => Fault::WorkerCrash(number),
            };
            self.plan(at, Happening::Fails(fault));
        }
    }

    fn some_worker(&self, number: u64) -> Option<WorkerId> {
        let place = (number % self.processes.len().max(1) as u64) as usize;
        self.processes.keys().nth(place).cloned()
    }

    pub(crate) fn fails(&mut self, fault: Fault) {
        let length = self.dice.millis(100, 6000);
        self.struck += 1;
        self.disturbed = self.now();
        match &fault {
            Fault::WorkerCrash(number) => {
                if let Some(worker) = self.some_worker(*number) {
                    self.worker_dies(&worker);
                }
            }
            Fault::WorkerFreeze(number) => {
                let Some(worker) = self.some_worker(*number) else { return };
                if let Some(process) = self.processes.get_mut(&worker) {
                    process.frozen = true;
                }
                self.plan(length, Happening::Mends(Fault::Thaw(worker)));
                return;
            }
            Fault::NodeCrash(node) => {
                self.node_crashes(*node);
                self.plan(length, Happening::NodeStarts(*node));
            }
            Fault::NodeCut(node) => self.nodes[*node].cut = true,
            Fault::RingCut(node) => self.nodes[*node].ring_cut = true,
            Fault::LinkBreak(node) => self.break_link(*node),
            Fault::AgentPause(node) => self.nodes[*node].paused_until = self.now() + length / 2,
            Fault::CoordinatorCrash => self.coordinator_crashes(length / 2),
            Fault::CoordinatorPause => {
                let (now, newest) = (self.now(), self.coordinators.len() - 1);
                self.coordinators[newest].paused_until = now + length;
            }
            // A few leases.
            Fault::NodeClock(node) => self.nodes[*node].ahead += length / 2,
            Fault::CoordinatorClock => {
                let newest = self.coordinators.len() - 1;
                self.coordinators[newest].ahead += length / 2;
            }
            Fault::SlowStore => self.store_delay = length,
            Fault::Damage => self.chain.damage(),
            Fault::Stop => {
                if let Some(current) = self.current() {
                    self.asked_to_stop = true;
                    self.coordinator_takes(current, Input::Event(Event::Stop(StopSource::Scheduler)));
                }
            }
            Fault::Thaw(_) => {}
        }
        if matches!(fault, Fault::NodeCut(_) | Fault::RingCut(_) | Fault::SlowStore) {
            self.plan(length, Happening::Mends(fault));
        }
    }

    fn coordinator_crashes(&mut self, back_after: Duration) {
        let newest = self.coordinators.len() - 1;
        if !self.coordinators[newest].up {
            return;
        }
        self.coordinators[newest].up = false;
        for link in 0..self.links.len() {
            if self.links[link].coordinator == newest {
                let after = self.latency();
                self.plan(after, Happening::LinkOverHere(link));
            }
        }
        self.plan(back_after, Happening::CoordinatorStarts);
    }

    pub(crate) fn mends(&mut self, fault: Fault) {
        self.disturbed = self.now();
        match fault {
            Fault::Thaw(worker) => {
                if let Some(process) = self.processes.get_mut(&worker) {
                    process.frozen = false;
                }
            }
            Fault::NodeCut(node) => self.nodes[node].cut = false,
            Fault::RingCut(node) => self.nodes[node].ring_cut = false,
            Fault::SlowStore => self.store_delay = Duration::from_millis(20),
            _ => {}
        }
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&mut self) {
        let now = self.now();
        for node in 0..self.nodes.len() {
            self.nodes[node].cut = false;
            self.nodes[node].ring_cut = false;
            self.nodes[node].paused_until = now;
            self.plan(Duration::from_millis(100), Happening::NodeStarts(node));
        }
        for process in self.processes.values_mut() {
            process.frozen = false;
        }
        for coordinator in &mut self.coordinators {
            coordinator.paused_until = now;
        }
        self.store_delay = Duration::from_millis(20);
    }
}
