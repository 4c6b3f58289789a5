//! Ends pending collective calls from another thread, and is what they wait on beside their sockets.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::CollectiveError;

/// A handle to one collective. Any number of threads may hold one; the first reason counts.
#[derive(Debug, Clone)]
pub struct Aborter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    reason: OnceLock<String>,
    /// Becomes readable with the first abort and stays so.
    wake: OwnedFd,
    /// Waits that were begun.
    waits: AtomicU64,
}

impl Aborter {
    /// A handle of a collective that is yet to be formed.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> Result<Self, CollectiveError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| CollectiveError::system("making an event descriptor", &errno))?;
        Ok(Self { shared: Arc::new(Shared { reason: OnceLock::new(), wake, waits: AtomicU64::new(0) }) })
    }

    /// Makes every pending and later call of the collective return [`CollectiveError::Aborted`].
    pub fn abort(&self, reason: impl Into<String>) {
        if self.shared.reason.set(reason.into()).is_ok() {
            // The counter is 0 before the only write, so the write cannot block or overflow.
            let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
        }
    }

    /// Whether the collective may go on.
    ///
    /// # Errors
    /// It was aborted.
    pub fn check(&self) -> Result<(), CollectiveError> {
        match self.shared.reason.get() {
            Some(reason) => Err(CollectiveError::Aborted { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// How often a call of the collective has begun to wait for its peers: what conformance looks at before it aborts one.
    pub(super) fn waits(&self) -> u64 {
        self.shared.waits.load(Ordering::Acquire)
    }

    /// Waits until one of `fds` is ready, or `deadline` has passed (then false).
    ///
    /// # Errors
    /// The collective was aborted, or the operating system cannot wait.
    pub(super) fn wait(
        &self,
        fds: &[(BorrowedFd<'_>, PollFlags)],
        deadline: Option<Instant>,
    ) -> Result<bool, CollectiveError> {
        let wake = (self.shared.wake.as_fd(), PollFlags::IN);
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().chain([&wake]).map(|&(fd, events)| PollFd::from_borrowed_fd(fd, events)).collect();
        loop {
            self.check()?;
            // An abort from here on is seen by the poll below, whenever that begins.
            self.shared.waits.fetch_add(1, Ordering::Release);
            let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            match poll(&mut polled, timeout.as_ref()) {
                Ok(ready) => return self.check().map(|()| ready > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(CollectiveError::system("waiting for peers", &errno)),
            }
        }
    }
}
