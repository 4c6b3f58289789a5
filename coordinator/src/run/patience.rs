//! The retry budget of a run: several generations in a row without progress end it, because a restart would fail as well.

use longtake_shared::protocol::Stage;

use super::settings::FRUITLESS_GENERATIONS;

/// The furthest progress of the run, and the number of generations in a row without further progress.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patience {
    furthest: Option<(Stage, u64)>,
    came_further: bool,
    fruitless: u32,
    /// Indices of workers lost outside of a generation since the last checkpoint.
    losses: Vec<usize>,
    /// Indices of workers whose processes failed while the run waited for them, since the last progress.
    failures: Vec<usize>,
}

impl Patience {
    /// A unit of a stage is done. Only a unit that was never reached before is progress.
    pub fn reached(&mut self, stage: Stage, done: u64) {
        if done > 0 && self.furthest.is_none_or(|furthest| (stage, done) > furthest) {
            self.furthest = Some((stage, done));
            self.came_further = true;
            self.fruitless = 0;
            self.failures.clear();
        }
    }

    /// A checkpoint is in the chain.
    pub fn checkpointed(&mut self) {
        self.came_further = true;
        self.fruitless = 0;
        self.losses.clear();
        self.failures.clear();
    }

    /// A generation has ended early. Returns whether the run may retry.
    pub fn try_again(&mut self) -> bool {
        if !std::mem::take(&mut self.came_further) {
            self.fruitless += 1;
        }
        self.fruitless < FRUITLESS_GENERATIONS
    }

    /// The process of a worker with that index has failed while the run waits for it. Returns whether the run may retry.
    pub fn try_again_at(&mut self, index: usize) -> bool {
        self.failures.push(index);
        self.failures.iter().filter(|failed| **failed == index).count() < FRUITLESS_GENERATIONS as usize
    }

    /// A worker with that index is lost while the run continues without it.
    pub fn lost(&mut self, index: usize) {
        self.losses.push(index);
    }

    /// Whether workers with that index were lost so often that none is started before the next checkpoint.
    pub fn gives_up(&self, index: usize) -> bool {
        self.losses.iter().filter(|lost| **lost == index).count() >= FRUITLESS_GENERATIONS as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_were_done_before_are_no_progress() {
        let mut patience = Patience::default();
        patience.reached(Stage::Train, 5);
        assert!(patience.try_again());
        for generation in 1..=3 {
            for done in 1..=5 {
                patience.reached(Stage::Train, done);
            }
            assert_eq!(patience.try_again(), generation < 3);
        }
    }

    #[test]
    fn a_place_where_workers_die_is_given_up_until_the_next_checkpoint() {
        let mut patience = Patience::default();
        for _ in 0..3 {
            assert!(!patience.gives_up(1));
            patience.lost(1);
        }
        assert!(patience.gives_up(1) && !patience.gives_up(0));
        patience.checkpointed();
        assert!(!patience.gives_up(1));
    }

    #[test]
    fn a_place_whose_processes_fail_while_the_run_waits_ends_it_and_failures_elsewhere_do_not_add_up() {
        let mut patience = Patience::default();
        for index in 0..3 {
            assert!(patience.try_again_at(index) && patience.try_again_at(index));
        }
        patience.reached(Stage::Train, 1);
        assert!(patience.try_again_at(1) && patience.try_again_at(1));
        assert!(!patience.try_again_at(1));
    }

    #[test]
    fn a_checkpoint_or_a_new_step_is() {
        let mut patience = Patience::default();
        for done in 1..20 {
            assert!(patience.try_again());
            assert!(patience.try_again());
            if done % 2 == 0 {
                patience.checkpointed();
            } else {
                patience.reached(Stage::Train, done);
            }
        }
    }
}
