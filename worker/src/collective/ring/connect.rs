//! How the connections of a generation come about: each rank dials the lower ones and hears the higher ones.
//!
//! Both ends say which run, generation and rank they are before anything else. Who belongs to an older generation is
//! refused; who meets a newer one learns that its own is over.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use longtake_shared::ids::{Generation, Rank, RunId};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use super::Ring;
use super::link::Peer;
use crate::collective::{Aborter, CollectiveError};

/// Who a worker is in a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The run.
    pub run: RunId,
    /// The generation.
    pub generation: Generation,
    /// Its rank there.
    pub rank: Rank,
}

/// An open port that outlives generations: bound before anyone knows the others' addresses.
#[derive(Debug)]
pub struct RingListener {
    listener: TcpListener,
}

/// What both ends of a connection say first, in the byte order of the machine, since the values that follow are too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Hello {
    magic: u64,
    run: [u8; 32],
    generation: u64,
    rank: u32,
    world: u32,
}

/// `longtak` and the version of the messages.
const MAGIC: u64 = u64::from_be_bytes(*b"longtak\x01");

/// Pause before a rank that did not answer is dialled again.
const REDIAL: Duration = Duration::from_millis(20);

impl RingListener {
    /// Listens at an address (port 0 takes a free one) and says where it can be reached.
    ///
    /// # Errors
    /// The address is taken or is not this machine's.
    pub fn bind(address: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((Self { listener }, address))
    }

    /// Forms the ring of a generation, whose rank r listens at `peers[r]`. `aborter` ends the attempt, too.
    ///
    /// # Errors
    /// Aborted, a rank did not come before `deadline`, or a peer is in a newer generation.
    pub fn connect(
        &self,
        membership: &Membership,
        peers: &[SocketAddr],
        deadline: Instant,
        aborter: Aborter,
    ) -> Result<Ring, CollectiveError> {
        let Membership { run, generation, rank } = membership;
        if rank.index() >= peers.len() {
            return Err(CollectiveError::NoSuchRank { rank: *rank, world: peers.len() });
        }
        let hello = Hello {
            magic: MAGIC,
            run: *blake3::hash(run.0.as_bytes()).as_bytes(),
            generation: generation.0,
            rank: rank.0,
            world: peers.len() as u32,
        };
        let forming = Forming { hello, deadline, aborter: &aborter };
        let mut streams: Vec<Option<TcpStream>> = peers.iter().map(|_| None).collect();
        for (lower, address) in peers.iter().enumerate().take(rank.index()) {
            streams[lower] = Some(forming.dial(lower as u32, *address)?);
        }
        forming.hear(&self.listener, &mut streams)?;
        let peers = (0u32..)
            .zip(streams)
            .map(|(rank, stream)| stream.map(|stream| Peer { rank: Rank(rank), stream }))
            .collect();
        Ok(Ring::new(rank.index(), *generation, peers, aborter))
    }
}

/// One attempt to form a generation.
struct Forming<'a> {
    hello: Hello,
    deadline: Instant,
    aborter: &'a Aborter,
}

/// A stream whose hello is not complete.
struct Greeting {
    stream: TcpStream,
    hello: Hello,
    done: usize,
}

impl Greeting {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, hello: Hello::zeroed(), done: 0 })
    }

    /// Reads what there is; true once the hello is whole.
    fn advance(&mut self) -> io::Result<bool> {
        let bytes = bytemuck::bytes_of_mut(&mut self.hello);
        while self.done < bytes.len() {
            match self.stream.read(&mut bytes[self.done..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.done += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Forming<'_> {
    /// Dials until the rank answers as one of this generation.
    fn dial(&self, rank: u32, address: SocketAddr) -> Result<TcpStream, CollectiveError> {
        loop {
            if let Some(greeting) = self.greet(rank, address)? {
                let theirs = greeting.hello;
                if theirs.rank == rank && self.admits(&theirs)? {
                    return Ok(greeting.stream);
                }
            }
            let again = Instant::now() + REDIAL;
            self.aborter.wait(&[], Some(again.min(self.deadline)))?;
            self.in_time(rank)?;
        }
    }

    /// Connects, says hello and waits for the answer; nothing where the other end is not there yet.
    fn greet(&self, rank: u32, address: SocketAddr) -> Result<Option<Greeting>, CollectiveError> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)
            .map_err(|errno| CollectiveError::system("making a socket", &errno))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {}
            Err(Errno::INPROGRESS) => {
                self.wait(rank, &[(socket.as_fd(), PollFlags::OUT)])?;
                if !matches!(sockopt::socket_error(&socket), Ok(Ok(()))) {
                    return Ok(None);
                }
            }
            Err(_) => return Ok(None),
        }
        let Ok(mut greeting) = Greeting::new(TcpStream::from(socket)) else { return Ok(None) };
        if !self.say_hello(&greeting.stream) {
            return Ok(None);
        }
        loop {
            match greeting.advance() {
                Ok(true) => return Ok(Some(greeting)),
                Ok(false) => self.wait(rank, &[(greeting.stream.as_fd(), PollFlags::IN)])?,
                Err(_) => return Ok(None),
            }
        }
    }

    /// A hello fits the empty buffer of a fresh socket, so it goes out whole or not at all.
    fn say_hello(&self, mut stream: &TcpStream) -> bool {
        matches!(stream.write(bytemuck::bytes_of(&self.hello)), Ok(sent) if sent == size_of::<Hello>())
    }

    /// Accepts until every higher rank is there.
    fn hear(&self, listener: &TcpListener, streams: &mut [Option<TcpStream>]) -> Result<(), CollectiveError> {
        let first = self.hello.rank as usize + 1;
        let mut greetings: Vec<Greeting> = Vec::new();
        while let Some(missing) = (first..streams.len()).find(|&rank| streams[rank].is_none()) {
            while let Ok((stream, _)) = listener.accept() {
                greetings.extend(Greeting::new(stream));
            }
            let mut waiting = Vec::new();
            for mut greeting in greetings {
                match greeting.advance() {
                    Ok(true) => self.answer(greeting, streams)?,
                    Ok(false) => waiting.push(greeting),
                    Err(_) => {}
                }
            }
            greetings = waiting;
            if streams[missing].is_some() {
                continue;
            }
            let fds: Vec<_> = std::iter::once(listener.as_fd())
                .chain(greetings.iter().map(|greeting| greeting.stream.as_fd()))
                .map(|fd| (fd, PollFlags::IN))
                .collect();
            self.wait(missing as u32, &fds)?;
        }
        Ok(())
    }

    /// Answers whoever belongs to the run, and keeps the connection if it is of this generation.
    fn answer(&self, greeting: Greeting, streams: &mut [Option<TcpStream>]) -> Result<(), CollectiveError> {
        let Greeting { stream, hello: theirs, .. } = greeting;
        if (theirs.magic, theirs.run) != (MAGIC, self.hello.run) || !self.say_hello(&stream) {
            return Ok(());
        }
        if self.admits(&theirs)? && theirs.rank > self.hello.rank {
            streams[theirs.rank as usize] = Some(stream);
        }
        Ok(())
    }

    /// Whether the other end is of this generation.
    fn admits(&self, theirs: &Hello) -> Result<bool, CollectiveError> {
        let ours = &self.hello;
        if (theirs.magic, theirs.run) != (ours.magic, ours.run) {
            return Ok(false);
        }
        if theirs.generation > ours.generation {
            return Err(CollectiveError::Superseded {
                rank: Rank(theirs.rank),
                theirs: Generation(theirs.generation),
                ours: Generation(ours.generation),
            });
        }
        Ok(theirs.generation == ours.generation && theirs.world == ours.world && theirs.rank < ours.world)
    }

    fn wait(
        &self,
        rank: u32,
        fds: &[(std::os::fd::BorrowedFd<'_>, PollFlags)],
    ) -> Result<(), CollectiveError> {
        self.aborter.wait(fds, Some(self.deadline))?;
        self.in_time(rank)
    }

    fn in_time(&self, missing: u32) -> Result<(), CollectiveError> {
        let generation = Generation(self.hello.generation);
        if Instant::now() < self.deadline {
            Ok(())
        } else {
            Err(CollectiveError::NotFormed { missing: Rank(missing), generation })
        }
    }
}
