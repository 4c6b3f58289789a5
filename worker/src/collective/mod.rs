//! Gradients become summed gradients: what all ranks of a generation do together.
//!
//! Takes: plain slices of f32. Gives: their sums, the same bits on every rank. Next: [`crate::optim`].
//! **What is absent:** no parameter names and no device. A collective belongs to one generation; any error breaks it for
//! good, and the next generation makes another.

/// Ends pending calls from another thread.
mod abort;

/// The suite that every implementation passes.
pub mod conformance;

/// A collective that fails on purpose.
mod faulty;

/// A world of one.
mod local;

/// Sums of moments for synchronised BatchNorm.
mod moments;

/// NCCL on CUDA devices.
#[cfg(feature = "cuda")]
pub mod nccl;

/// TCP between processes, for CPU.
mod ring;

use longtake_shared::hint::Hint;
use longtake_shared::ids::{Generation, Rank};

pub use abort::Aborter;
pub use faulty::{Fault, FaultKind, Faulty};
pub use local::Local;
pub use moments::SharedCollective;
pub use ring::{Membership, Ring, RingListener, loopback};

/// What all ranks of a generation do together. Every rank makes the same calls in the same order with the same lengths.
pub trait Collective: Send {
    /// This process's position.
    fn rank(&self) -> Rank;

    /// How many ranks there are.
    fn world(&self) -> usize;

    /// The generation this collective was formed for.
    fn generation(&self) -> Generation;

    /// Replaces the values by their sums over all ranks, which have the same bits on every rank and in every run.
    ///
    /// # Errors
    /// A rank is gone, made another call, or the collective was aborted. What `values` then hold is unspecified.
    fn all_reduce(&mut self, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// Replaces `bytes` by those of the rank `root`, whatever their length.
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    fn broadcast(&mut self, root: Rank, bytes: &mut Vec<u8>) -> Result<(), CollectiveError>;

    /// Sends bytes to some ranks and receives from others, at most one message each way between two ranks; gives what came,
    /// in the order of `receive`. Every rank makes the call, those without a message too, and does not wait for the others'
    /// messages. Who sends to whom is known to both: a message that the other end does not expect breaks the collective.
    ///
    /// # Errors
    /// As [`Self::all_reduce`]; a peer that is no other rank.
    fn exchange(
        &mut self,
        send: &[(Rank, Vec<u8>)],
        receive: &[Rank],
    ) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// Returns once every rank has called it.
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    fn barrier(&mut self) -> Result<(), CollectiveError>;

    /// A handle that ends pending and later calls from another thread.
    fn aborter(&self) -> Aborter;
}

impl<C: Collective + ?Sized> Collective for Box<C> {
    fn rank(&self) -> Rank {
        (**self).rank()
    }

    fn world(&self) -> usize {
        (**self).world()
    }

    fn generation(&self) -> Generation {
        (**self).generation()
    }

    fn all_reduce(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        (**self).all_reduce(values)
    }

    fn broadcast(&mut self, root: Rank, bytes: &mut Vec<u8>) -> Result<(), CollectiveError> {
        (**self).broadcast(root, bytes)
    }

    fn exchange(
        &mut self,
        send: &[(Rank, Vec<u8>)],
        receive: &[Rank],
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        (**self).exchange(send, receive)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        (**self).barrier()
    }

    fn aborter(&self) -> Aborter {
        (**self).aborter()
    }
}

/// Why a collective call, or the forming of a collective, did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectiveError {
    /// Another thread ended it.
    #[error("the collective was aborted: {reason}")]
    Aborted {
        /// What the other thread said.
        reason: String,
    },
    /// The connection to a rank ended. Where several ranks fail in a row, this is the neighbour that was seen to fail.
    #[error("the connection to {rank} was lost: {reason}")]
    PeerLost {
        /// The rank at the other end.
        rank: Rank,
        /// What the socket said.
        reason: String,
    },
    /// A rank made another call, or the same with another length.
    #[error(
        "{rank} is in call {theirs}, but this rank is in call {ours}: the ranks do not run the same steps"
    )]
    Mismatch {
        /// The other rank.
        rank: Rank,
        /// Number, kind and length of its call.
        theirs: String,
        /// Number, kind and length of this rank's call.
        ours: String,
    },
    /// A peer belongs to a newer generation: this one is over.
    #[error("{rank} is already in generation {theirs}, but this worker was forming {ours}")]
    Superseded {
        /// The peer.
        rank: Rank,
        /// Its generation.
        theirs: Generation,
        /// The generation being formed.
        ours: Generation,
    },
    /// Some ranks did not come in time.
    #[error("{missing} of generation {generation} did not connect in time")]
    NotFormed {
        /// The first rank that is missing.
        missing: Rank,
        /// The generation being formed.
        generation: Generation,
    },
    /// An address list, rank or root that makes no sense.
    #[error("{rank} cannot be reached in a world of {world}")]
    NoSuchRank {
        /// The rank.
        rank: Rank,
        /// How many ranks there are.
        world: usize,
    },
    /// The operating system or the device refused something.
    #[error("{what} failed: {reason}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What it said.
        reason: String,
    },
    /// A fault that a test asked for.
    #[error("a fault was injected at {rank} in call {call}")]
    Injected {
        /// Where.
        rank: Rank,
        /// The number of the call, from 0.
        call: u64,
    },
}

impl Hint for CollectiveError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Mismatch { .. } => {
                Some("check that all workers run the same binary, settings and data set".into())
            }
            Self::NotFormed { .. } => Some(
                "check that workers can reach each other's addresses, and see the missing worker's log"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// Whether every peer of an exchange is another rank of the world.
fn check_peers(
    own: Rank,
    world: usize,
    send: &[(Rank, Vec<u8>)],
    receive: &[Rank],
) -> Result<(), CollectiveError> {
    let mut peers = send.iter().map(|(peer, _)| *peer).chain(receive.iter().copied());
    match peers.find(|peer| *peer == own || peer.index() >= world) {
        Some(rank) => Err(CollectiveError::NoSuchRank { rank, world }),
        None => Ok(()),
    }
}

impl CollectiveError {
    pub(crate) fn system(what: &'static str, reason: &dyn std::fmt::Display) -> Self {
        Self::System { what, reason: reason.to_string() }
    }
}
