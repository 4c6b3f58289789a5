//! The thread that writes the ledger, so that no call of sled is on the training thread.
//!
//! Rows go to the slab as they come; what the ledger must know of them is gathered until enough has come together or
//! someone asks. Then: sync the slab, commit to the ledger, release the slots that were replaced. In this order a crash
//! leaves each row as it was or as it became.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use longtake_shared::ids::{LaneId, VideoIndex};

use super::ledger::{LaneChanges, Ledger};
use super::rows::Row;
use super::slab::Slab;
use super::slots::{Freed, Settled};

/// Why nothing can be written any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The disk is full.
    Full,
    /// Anything else, as a sentence.
    Other(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<sled::Error> for Failure {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => error.into(),
            other => Self::Other(other.to_string()),
        }
    }
}

/// What the training thread asks for.
enum Order {
    Change { lane: LaneId, video: VideoIndex, rows: Vec<(u32, Row)>, freed: Freed },
    Forget { lane: LaneId, freed: Freed },
    Flush(Sender<Result<(), Failure>>),
}

/// Handle of the thread; dropping it commits what is left and waits.
#[derive(Debug)]
pub(super) struct Writer {
    orders: Option<Sender<Order>>,
    failure: Arc<Mutex<Option<Failure>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. It commits on its own when `commit_rows` changed rows have come together.
    pub(super) fn start(
        ledger: Ledger,
        slab: Arc<Slab>,
        settled: Settled,
        commit_rows: usize,
    ) -> io::Result<Self> {
        let (orders, received) = channel();
        let failure = Arc::new(Mutex::new(None));
        let mut work = Work {
            ledger,
            slab,
            settled,
            failure: Arc::clone(&failure),
            changes: BTreeMap::new(),
            freed: Vec::new(),
            changed: 0,
        };
        let thread = std::thread::Builder::new()
            .name("memory-ledger".into())
            .spawn(move || work.run(&received, commit_rows))?;
        Ok(Self { orders: Some(orders), failure, thread: Some(thread) })
    }

    /// Rows of a video are now these.
    pub(super) fn change(
        &self,
        lane: LaneId,
        video: VideoIndex,
        rows: Vec<(u32, Row)>,
        freed: Freed,
    ) -> Result<(), Failure> {
        self.send(Order::Change { lane, video, rows, freed })
    }

    /// Nothing of a lane is remembered any more.
    pub(super) fn forget(&self, lane: LaneId, freed: Freed) -> Result<(), Failure> {
        self.send(Order::Forget { lane, freed })
    }

    /// Returns when all that was asked for is durable.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        let (answer, answered) = channel();
        self.send(Order::Flush(answer))?;
        answered.recv().unwrap_or_else(|_| Err(self.failure().unwrap_or_else(stopped)))
    }

    /// Why the ledger can no longer be written, if so.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on nothing can be written, as after the first error of the disk.
    #[cfg(test)]
    pub(super) fn fail(&self, problem: &str) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        *failure = Some(Failure::Other(problem.to_owned()));
    }

    fn send(&self, order: Order) -> Result<(), Failure> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let sent = self.orders.as_ref().map(|orders| orders.send(order));
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(self.failure().unwrap_or_else(stopped)) }
    }
}

fn stopped() -> Failure {
    Failure::Other("its thread has stopped".to_owned())
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the ledger of the long memory panicked");
        }
    }
}

struct Work {
    ledger: Ledger,
    slab: Arc<Slab>,
    settled: Settled,
    failure: Arc<Mutex<Option<Failure>>>,
    changes: BTreeMap<LaneId, LaneChanges>,
    freed: Vec<Freed>,
    changed: usize,
}

impl Work {
    fn run(&mut self, orders: &Receiver<Order>, commit_rows: usize) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Change { lane, video, rows, freed } => {
                    self.changed += rows.len();
                    let changes = self.changes.entry(lane).or_default();
                    changes.rows.extend(rows.into_iter().map(|(position, row)| ((video, position), row)));
                    self.freed.push(freed);
                }
                Order::Forget { lane, freed } => {
                    self.changed += freed.slots.len();
                    self.changes.insert(lane, LaneChanges { cleared: true, rows: BTreeMap::new() });
                    self.freed.push(freed);
                }
                Order::Flush(answer) => {
                    // Whoever asked may have gone: then nobody is told.
                    let _ = answer.send(self.commit());
                }
            }
            // What fails here has been logged, and is the answer to the next order.
            let _ = if self.changed >= commit_rows { self.commit() } else { self.settle() };
        }
        let _ = self.commit();
    }

    /// Writes rows to the slab that wait.
    fn settle(&self) -> Result<(), Failure> {
        self.unless_failed(|| Ok(self.slab.settle()?))
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.unless_failed(|| {
            self.slab.settle()?;
            self.slab.sync()?;
            Ok(self.ledger.commit(&self.changes)?)
        })?;
        self.changes.clear();
        self.changed = 0;
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.freed);
        Ok(())
    }

    /// The first failure is the last thing that happens to the store's files.
    fn unless_failed(&self, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let known = || self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = known().clone() {
            return Err(failure);
        }
        work().inspect_err(|failure| {
            tracing::error!(?failure, "the long memory can no longer be written");
            *known() = Some(failure.clone());
        })
    }
}
