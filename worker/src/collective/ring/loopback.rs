//! A whole world of rings inside one process, for tests and benchmarks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use longtake_shared::ids::{Generation, Rank, RunId};

use super::{Membership, Ring, RingListener};
use crate::collective::{Aborter, CollectiveError};

/// How long the ranks may take to reach each other.
const DEADLINE: Duration = Duration::from_secs(20);

/// One ring a rank, connected over loopback TCP.
///
/// # Errors
/// The system has no port, or a rank does not reach the others.
pub fn loopback(world: usize) -> Result<Vec<Ring>, CollectiveError> {
    let mut listeners = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..world {
        let (listener, address) = RingListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
            .map_err(|error| CollectiveError::system("listening on loopback", &error))?;
        listeners.push(listener);
        peers.push(address);
    }
    let peers = &peers;
    thread::scope(|scope| {
        let threads: Vec<_> = (0u32..)
            .zip(&listeners)
            .map(|(rank, listener)| {
                scope.spawn(move || {
                    let membership = Membership {
                        run: RunId("loopback".to_owned()),
                        generation: Generation(1),
                        rank: Rank(rank),
                    };
                    listener.connect(&membership, peers, Instant::now() + DEADLINE, Aborter::new()?)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
