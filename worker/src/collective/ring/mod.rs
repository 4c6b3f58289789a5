//! TCP between processes: a ring for gradients, direct exchange for what is small.
//!
//! Every pair of ranks has one connection. Large vectors are cut into one part a rank; each part is summed on its way
//! round the ring and then handed on as it is, so every rank ends with the same bits (Patarasu and Yuan 2009). Small
//! ones go to every rank at once and are summed in the order of ranks: one hop in place of 2 (world - 1).

/// How connections come about.
mod connect;

/// Messages on their way.
mod link;

/// A world inside one process.
mod loopback;

use std::net::Shutdown;
use std::ops::Range;

use longtake_shared::ids::{Generation, Rank};

pub use connect::{Membership, RingListener};
use link::{Call, Incoming, Kind, Outgoing, Peer, transfer};
pub use loopback::loopback;

use super::{Aborter, Collective, CollectiveError, check_peers};

/// Up to this many values everyone sends everything to everyone (16 KiB).
const SMALL_VALUES: usize = 4096;

/// A collective over TCP.
#[derive(Debug)]
pub struct Ring {
    rank: usize,
    generation: Generation,
    /// One a rank; nothing at this rank's own place.
    peers: Vec<Option<Peer>>,
    aborter: Aborter,
    calls: u64,
    broken: Option<CollectiveError>,
}

impl Ring {
    fn new(rank: usize, generation: Generation, peers: Vec<Option<Peer>>, aborter: Aborter) -> Self {
        Self { rank, generation, peers, aborter, calls: 0, broken: None }
    }

    /// Makes one call. After an error the connections are closed, so that the other ranks' calls end too.
    fn call(
        &mut self,
        kind: Kind,
        length: usize,
        work: impl FnOnce(&Self, &Call) -> Result<(), CollectiveError>,
    ) -> Result<(), CollectiveError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let call = Call { number: self.calls, kind, length: length as u64 };
        self.calls += 1;
        let result = self.aborter.check().and_then(|()| work(self, &call));
        if let Err(error) = &result {
            self.broken = Some(error.clone());
            for peer in self.peers.iter().flatten() {
                // The peer may be gone already; there is nothing to do about it.
                let _ = peer.stream.shutdown(Shutdown::Both);
            }
        }
        result
    }

    fn peer(&self, rank: usize) -> &Peer {
        self.peers[rank].as_ref().expect("a rank has a connection to every other")
    }

    /// The rank `distance` places further round the ring.
    fn after(&self, distance: usize) -> usize {
        (self.rank + distance) % self.peers.len()
    }

    fn others(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().flatten()
    }

    /// Everyone sends everything to everyone, and sums in the order of ranks.
    fn reduce_directly(&self, call: &Call, values: &mut [f32]) -> Result<(), CollectiveError> {
        let own = values.to_vec();
        let mut received = vec![vec![0f32; values.len()]; self.peers.len()];
        let mut outgoing: Vec<_> =
            self.others().map(|peer| Outgoing::new(peer, call, bytemuck::cast_slice(&own))).collect();
        let mut incoming: Vec<_> = (self.peers.iter().zip(&mut received))
            .filter_map(|(peer, buffer)| {
                peer.as_ref().map(|peer| Incoming::new(peer, call, bytemuck::cast_slice_mut(buffer)))
            })
            .collect();
        transfer(&mut outgoing, &mut incoming, &self.aborter)?;
        received[self.rank].copy_from_slice(&own);
        values.copy_from_slice(&received[0]);
        for addends in &received[1..] {
            add(values, addends);
        }
        Ok(())
    }

    /// Reduce-scatter, then all-gather: part p is summed on its way from rank p to rank p - 1.
    fn reduce_around(&self, call: &Call, values: &mut [f32]) -> Result<(), CollectiveError> {
        let world = self.peers.len();
        let mut scratch = vec![0f32; values.len().div_ceil(world)];
        for step in 0..world - 1 {
            let outgoing = part(values.len(), world, self.after(world - step));
            let incoming = part(values.len(), world, self.after(world - step - 1));
            let buffer = &mut scratch[..incoming.len()];
            self.pass_on(call, &values[outgoing], buffer)?;
            add(&mut values[incoming], buffer);
        }
        for step in 0..world - 1 {
            let outgoing = part(values.len(), world, self.after(world + 1 - step));
            let incoming = part(values.len(), world, self.after(world - step));
            let buffer = &mut scratch[..incoming.len()];
            self.pass_on(call, &values[outgoing], buffer)?;
            values[incoming].copy_from_slice(buffer);
        }
        Ok(())
    }

    /// Sends to the next rank while receiving from the one before.
    fn pass_on(&self, call: &Call, send: &[f32], receive: &mut [f32]) -> Result<(), CollectiveError> {
        let (next, previous) = (self.peer(self.after(1)), self.peer(self.after(self.peers.len() - 1)));
        self.relay(
            call,
            Some((next, bytemuck::cast_slice(send))),
            Some((previous, bytemuck::cast_slice_mut(receive))),
        )
    }

    /// From the root along the ring, block by block, so that all links are busy at once.
    fn hand_along(&self, call: &Call, root: usize, bytes: &mut Vec<u8>) -> Result<(), CollectiveError> {
        let world = self.peers.len();
        let distance = (self.rank + world - root) % world;
        let previous = (distance > 0).then(|| self.peer(self.after(world - 1)));
        let next = (distance + 1 < world).then(|| self.peer(self.after(1)));

        let mut length = (bytes.len() as u64).to_le_bytes();
        self.relay(call, None, previous.map(|peer| (peer, &mut length[..])))?;
        self.relay(call, next.map(|peer| (peer, &length[..])), None)?;
        let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
        if previous.is_some() {
            *bytes = room(length)?;
        }

        // While a block goes on to the next rank, the one after it comes in from the rank before.
        let mut sent = 0;
        for end in (0..length).step_by(BLOCK).chain([length]) {
            let (here, coming) = bytes.split_at_mut(end);
            let incoming = &mut coming[..BLOCK.min(length - end)];
            self.relay(
                call,
                next.filter(|_| sent < end).map(|peer| (peer, &here[sent..])),
                previous.filter(|_| end < length).map(|peer| (peer, incoming)),
            )?;
            sent = end;
        }
        Ok(())
    }

    /// Lengths, then bytes, straight between those who have something for each other.
    fn exchange_directly(
        &self,
        call: &Call,
        send: &[(Rank, Vec<u8>)],
        receive: &[Rank],
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let lengths: Vec<[u8; 8]> =
            send.iter().map(|(_, bytes)| (bytes.len() as u64).to_le_bytes()).collect();
        let mut coming = vec![[0; 8]; receive.len()];
        self.send_and_receive(
            call,
            send.iter().zip(&lengths).map(|((peer, _), length)| (*peer, &length[..])),
            receive.iter().copied().zip(coming.iter_mut().map(<[u8; 8]>::as_mut_slice)),
        )?;
        let mut received = Vec::with_capacity(receive.len());
        for length in coming {
            let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
            received.push(room(length)?);
        }
        self.send_and_receive(
            call,
            send.iter().map(|(peer, bytes)| (*peer, bytes.as_slice())),
            receive.iter().copied().zip(received.iter_mut().map(Vec::as_mut_slice)),
        )?;
        Ok(received)
    }

    fn send_and_receive<'a, 'b>(
        &self,
        call: &Call,
        send: impl Iterator<Item = (Rank, &'a [u8])>,
        receive: impl Iterator<Item = (Rank, &'b mut [u8])>,
    ) -> Result<(), CollectiveError> {
        let mut outgoing: Vec<_> =
            send.map(|(to, bytes)| Outgoing::new(self.peer(to.index()), call, bytes)).collect();
        let mut incoming: Vec<_> =
            receive.map(|(from, bytes)| Incoming::new(self.peer(from.index()), call, bytes)).collect();
        transfer(&mut outgoing, &mut incoming, &self.aborter)
    }

    /// Sends, receives, or both at once.
    fn relay(
        &self,
        call: &Call,
        send: Option<(&Peer, &[u8])>,
        receive: Option<(&Peer, &mut [u8])>,
    ) -> Result<(), CollectiveError> {
        let mut outgoing: Vec<_> =
            send.into_iter().map(|(peer, bytes)| Outgoing::new(peer, call, bytes)).collect();
        let mut incoming: Vec<_> =
            receive.into_iter().map(|(peer, bytes)| Incoming::new(peer, call, bytes)).collect();
        transfer(&mut outgoing, &mut incoming, &self.aborter)
    }
}

/// Bytes that a rank has before it hands them on.
const BLOCK: usize = 256 << 10;

/// So many bytes to receive into; the length is the peer's word, so it may be more than there is.
fn room(length: usize) -> Result<Vec<u8>, CollectiveError> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(length)
        .map_err(|error| CollectiveError::system("making room for a message", &error))?;
    bytes.resize(length, 0);
    Ok(bytes)
}

/// The values of one of `world` parts, whose lengths differ by at most one.
fn part(length: usize, world: usize, index: usize) -> Range<usize> {
    length * index / world..length * (index + 1) / world
}

fn add(values: &mut [f32], addends: &[f32]) {
    for (value, addend) in values.iter_mut().zip(addends) {
        *value += addend;
    }
}

impl Collective for Ring {
    fn rank(&self) -> Rank {
        Rank(self.rank as u32)
    }

    fn world(&self) -> usize {
        self.peers.len()
    }

    fn generation(&self) -> Generation {
        self.generation
    }

    fn all_reduce(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.call(Kind::AllReduce, values.len(), |ring, call| {
            if values.len() <= SMALL_VALUES {
                ring.reduce_directly(call, values)
            } else {
                ring.reduce_around(call, values)
            }
        })
    }

    fn broadcast(&mut self, root: Rank, bytes: &mut Vec<u8>) -> Result<(), CollectiveError> {
        if root.index() >= self.world() {
            return Err(CollectiveError::NoSuchRank { rank: root, world: self.world() });
        }
        self.call(Kind::Broadcast, root.index(), |ring, call| ring.hand_along(call, root.index(), bytes))
    }

    fn exchange(
        &mut self,
        send: &[(Rank, Vec<u8>)],
        receive: &[Rank],
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        check_peers(Rank(self.rank as u32), self.world(), send, receive)?;
        let mut received = Vec::new();
        self.call(Kind::Exchange, 0, |ring, call| {
            received = ring.exchange_directly(call, send, receive)?;
            Ok(())
        })?;
        Ok(received)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.call(Kind::Barrier, 0, |ring, call| ring.reduce_directly(call, &mut []))
    }

    fn aborter(&self) -> Aborter {
        self.aborter.clone()
    }
}

#[cfg(test)]
mod tests;
