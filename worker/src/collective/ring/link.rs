//! Messages on their way: a header that says which call they belong to, then the values as they lie in memory.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;

use bytemuck::{Pod, Zeroable};
use longtake_shared::ids::Rank;
use rustix::event::PollFlags;

use crate::collective::{Aborter, CollectiveError};

/// The connection to one rank; its socket does not block.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) rank: Rank,
    pub(super) stream: TcpStream,
}

/// Which call a message belongs to. Every rank must be in the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// Calls of this collective before.
    pub(super) number: u64,
    pub(super) kind: Kind,
    /// Number of values, or the root of a broadcast.
    pub(super) length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Kind {
    AllReduce = 1,
    Broadcast = 2,
    Barrier = 3,
    Exchange = 4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Header {
    number: u64,
    kind: u64,
    length: u64,
}

impl Header {
    const BYTES: usize = size_of::<Self>();

    fn of(call: &Call) -> Self {
        Self { number: call.number, kind: call.kind as u64, length: call.length }
    }

    fn describe(self) -> String {
        let Self { number, kind, length } = self;
        match kind {
            1 => format!("{number} (all-reduce of {length} values)"),
            2 => format!("{number} (broadcast from rank {length})"),
            3 => format!("{number} (barrier)"),
            4 => format!("{number} (exchange)"),
            _ => format!("{number} (of unknown kind {kind})"),
        }
    }
}

/// A message that is being sent.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    peer: &'a Peer,
    header: Header,
    payload: &'a [u8],
    done: usize,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(peer: &'a Peer, call: &Call, payload: &'a [u8]) -> Self {
        Self { peer, header: Header::of(call), payload, done: 0 }
    }

    /// Sends what the socket takes; true once all is sent.
    fn advance(&mut self) -> Result<bool, CollectiveError> {
        while self.done < Header::BYTES + self.payload.len() {
            let header = &bytemuck::bytes_of(&self.header)[self.done.min(Header::BYTES)..];
            let payload = &self.payload[self.done.saturating_sub(Header::BYTES)..];
            let sent = (&self.peer.stream).write_vectored(&[IoSlice::new(header), IoSlice::new(payload)]);
            match step(self.peer, sent)? {
                Some(sent) => self.done += sent,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// A message that is being received.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    peer: &'a Peer,
    expected: Header,
    header: Header,
    payload: &'a mut [u8],
    done: usize,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(peer: &'a Peer, call: &Call, payload: &'a mut [u8]) -> Self {
        Self { peer, expected: Header::of(call), header: Header::zeroed(), payload, done: 0 }
    }

    /// Receives what there is; true once all is there.
    fn advance(&mut self) -> Result<bool, CollectiveError> {
        while self.done < Header::BYTES + self.payload.len() {
            let header = &mut bytemuck::bytes_of_mut(&mut self.header)[self.done.min(Header::BYTES)..];
            let payload = &mut self.payload[self.done.saturating_sub(Header::BYTES)..];
            let received =
                (&self.peer.stream).read_vectored(&mut [IoSliceMut::new(header), IoSliceMut::new(payload)]);
            match step(self.peer, received)? {
                Some(received) => self.done += received,
                None => return Ok(false),
            }
            // Judged before more is awaited: a shorter message of another call would never fill this one.
            if self.done >= Header::BYTES && self.header != self.expected {
                return Err(CollectiveError::Mismatch {
                    rank: self.peer.rank,
                    theirs: self.header.describe(),
                    ours: self.expected.describe(),
                });
            }
        }
        Ok(true)
    }
}

/// Bytes moved, or nothing where the socket is not ready.
fn step(peer: &Peer, moved: io::Result<usize>) -> Result<Option<usize>, CollectiveError> {
    let lost = |reason: String| CollectiveError::PeerLost { rank: peer.rank, reason };
    match moved {
        Ok(0) => Err(lost("it closed the connection".into())),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
        Err(error) => Err(lost(error.to_string())),
    }
}

/// Sends and receives until all messages are through.
pub(super) fn transfer(
    outgoing: &mut [Outgoing<'_>],
    incoming: &mut [Incoming<'_>],
    aborter: &Aborter,
) -> Result<(), CollectiveError> {
    loop {
        let mut waiting = Vec::with_capacity(outgoing.len() + incoming.len());
        for message in &mut *outgoing {
            if !message.advance()? {
                waiting.push((message.peer.stream.as_fd(), PollFlags::OUT));
            }
        }
        for message in &mut *incoming {
            if !message.advance()? {
                waiting.push((message.peer.stream.as_fd(), PollFlags::IN));
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        aborter.wait(&waiting, None)?;
    }
}
