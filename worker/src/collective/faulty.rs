//! A collective that fails on purpose, so that tests see what follows from a fault.

use longtake_shared::ids::{Generation, Rank};

use super::{Aborter, Collective, CollectiveError};

/// What happens instead of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It returns an error without reaching the others.
    Fail,
    /// It is made, and returns an error all the same: the others have its result.
    Lose,
    /// It does not return until it is aborted.
    Stall,
    /// It returns with one bit of the result turned over.
    Corrupt,
}

/// What is done to the result of a call.
enum Spoil {
    Nothing,
    Corrupt,
    Lose(CollectiveError),
}

impl Spoil {
    fn lost(self) -> Result<(), CollectiveError> {
        if let Self::Lose(error) = self { Err(error) } else { Ok(()) }
    }
}

/// One fault: which call of which rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The rank it strikes.
    pub rank: Rank,
    /// The number of the call, from 0, all kinds counted together.
    pub call: u64,
    /// What happens.
    pub kind: FaultKind,
}

/// Passes calls on, except where a fault is due.
#[derive(Debug)]
pub struct Faulty<C> {
    inner: C,
    faults: Vec<Fault>,
    calls: u64,
}

impl<C: Collective> Faulty<C> {
    /// A collective with these faults; those of other ranks are ignored.
    pub fn new(inner: C, faults: Vec<Fault>) -> Self {
        Self { inner, faults, calls: 0 }
    }

    /// What is to be done to the result of the call that is due.
    fn next(&mut self) -> Result<Spoil, CollectiveError> {
        let (rank, call) = (self.inner.rank(), self.calls);
        self.calls += 1;
        let due = self.faults.iter().find(|fault| fault.rank == rank && fault.call == call);
        match due.map(|fault| fault.kind) {
            None => Ok(Spoil::Nothing),
            Some(FaultKind::Corrupt) => Ok(Spoil::Corrupt),
            Some(FaultKind::Lose) => Ok(Spoil::Lose(CollectiveError::Injected { rank, call })),
            Some(FaultKind::Fail) => Err(CollectiveError::Injected { rank, call }),
            Some(FaultKind::Stall) => {
                let aborter = self.inner.aborter();
                while aborter.wait(&[], None)? {}
                Ok(Spoil::Nothing)
            }
        }
    }
}

impl<C: Collective> Collective for Faulty<C> {
    fn rank(&self) -> Rank {
        self.inner.rank()
    }

    fn world(&self) -> usize {
        self.inner.world()
    }

    fn generation(&self) -> Generation {
        self.inner.generation()
    }

    fn all_reduce(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        let spoil = self.next()?;
        self.inner.all_reduce(values)?;
        if let (Spoil::Corrupt, Some(value)) = (&spoil, values.first_mut()) {
            *value = f32::from_bits(value.to_bits() ^ 1);
        }
        spoil.lost()
    }

    fn broadcast(&mut self, root: Rank, bytes: &mut Vec<u8>) -> Result<(), CollectiveError> {
        let spoil = self.next()?;
        self.inner.broadcast(root, bytes)?;
        if let (Spoil::Corrupt, Some(byte)) = (&spoil, bytes.first_mut()) {
            *byte ^= 1;
        }
        spoil.lost()
    }

    fn exchange(
        &mut self,
        send: &[(Rank, Vec<u8>)],
        receive: &[Rank],
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let spoil = self.next()?;
        let mut received = self.inner.exchange(send, receive)?;
        if let (Spoil::Corrupt, Some(byte)) = (&spoil, received.iter_mut().flatten().next()) {
            *byte ^= 1;
        }
        spoil.lost().map(|()| received)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        let spoil = self.next()?;
        self.inner.barrier()?;
        spoil.lost()
    }

    fn aborter(&self) -> Aborter {
        self.inner.aborter()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "what is not touched keeps its bits")]

    use super::*;
    use crate::collective::{Local, conformance};

    fn faulty(kind: FaultKind) -> Faulty<Local> {
        let local = Local::new(Generation(1), Aborter::new().unwrap());
        Faulty::new(
            local,
            vec![Fault { rank: Rank(0), call: 1, kind }, Fault { rank: Rank(1), call: 0, kind }],
        )
    }

    #[test]
    fn without_a_fault_it_conforms() {
        conformance::check(&[1], &|_| {
            vec![Box::new(Faulty::new(
                Local::new(Generation(1), Aborter::new().expect("a descriptor")),
                vec![],
            ))]
        });
    }

    #[test]
    fn a_fault_strikes_its_call_only() {
        let mut failing = faulty(FaultKind::Fail);
        assert_eq!(failing.barrier(), Ok(()));
        assert_eq!(failing.barrier(), Err(CollectiveError::Injected { rank: Rank(0), call: 1 }));
        assert_eq!(failing.barrier(), Ok(()));

        let mut corrupting = faulty(FaultKind::Corrupt);
        let mut values = [1.0, 2.0];
        corrupting.all_reduce(&mut values).unwrap();
        assert_eq!(values, [1.0, 2.0]);
        corrupting.all_reduce(&mut values).unwrap();
        assert_ne!(values, [1.0, 2.0]);
    }

    #[test]
    fn a_stalled_call_ends_when_aborted() {
        let mut stalling = faulty(FaultKind::Stall);
        stalling.barrier().unwrap();
        let aborter = stalling.aborter();
        let pending = std::thread::spawn(move || stalling.barrier());
        aborter.abort("enough");
        assert_eq!(pending.join().unwrap(), Err(CollectiveError::Aborted { reason: "enough".into() }));
    }
}
