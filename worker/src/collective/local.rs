//! A world of one: every sum is the value itself.

use longtake_shared::ids::{Generation, Rank};

use super::{Aborter, Collective, CollectiveError, check_peers};

/// The collective of a run with one worker.
#[derive(Debug)]
pub struct Local {
    generation: Generation,
    aborter: Aborter,
}

impl Local {
    /// A world of one.
    pub fn new(generation: Generation, aborter: Aborter) -> Self {
        Self { generation, aborter }
    }
}

impl Collective for Local {
    fn rank(&self) -> Rank {
        Rank(0)
    }

    fn world(&self) -> usize {
        1
    }

    fn generation(&self) -> Generation {
        self.generation
    }

    fn all_reduce(&mut self, _values: &mut [f32]) -> Result<(), CollectiveError> {
        self.aborter.check()
    }

    fn broadcast(&mut self, root: Rank, _bytes: &mut Vec<u8>) -> Result<(), CollectiveError> {
        if root != Rank(0) {
            return Err(CollectiveError::NoSuchRank { rank: root, world: 1 });
        }
        self.aborter.check()
    }

    fn exchange(
        &mut self,
        send: &[(Rank, Vec<u8>)],
        receive: &[Rank],
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        check_peers(Rank(0), 1, send, receive)?;
        self.aborter.check().map(|()| Vec::new())
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.aborter.check()
    }

    fn aborter(&self) -> Aborter {
        self.aborter.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collective::conformance;

    #[test]
    fn a_world_of_one_conforms() {
        conformance::check(&[1], &|_| {
            vec![Box::new(Local::new(Generation(1), Aborter::new().expect("a descriptor")))]
        });
    }
}
