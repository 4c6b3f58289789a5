//! The thread that encodes, hashes and uploads a checkpoint's parts while training goes on.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use futures::{StreamExt as _, TryStreamExt as _};
use longtake_shared::checkpoint::{CheckpointError, CheckpointStore, MemorySegment, PartRef};
use longtake_shared::hint::Hint;
use tokio::sync::watch;

use crate::model::memory::{MemoryError, Snapshot};
use crate::tensors::{TensorFile, TensorFileError};

/// Uploads at a time: one is hashed and written while the next is read from the slab.
const UPLOADS_AT_A_TIME: usize = 2;

/// What one worker saves: host copies made at a step boundary.
#[derive(Debug)]
pub struct SaveRequest {
    /// Parameters and buffers; from the one rank that saves them.
    pub model: Option<TensorFile>,
    /// The optimizer's tensors; from the one rank that saves them.
    pub optimizer: Option<TensorFile>,
    /// The memory of the worker's lanes; none before the memory is filled.
    pub memory: Option<Snapshot>,
    /// Videos of a lane that share a part.
    pub videos_a_part: usize,
}

/// What a worker's save has put into the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedParts {
    /// Parameters and buffers.
    pub model: Option<PartRef>,
    /// The optimizer's tensors.
    pub optimizer: Option<PartRef>,
    /// The memory of the worker's lanes, sorted by lane and videos.
    pub memory: Vec<MemorySegment>,
}

/// A save that failed. The checkpoints that exist are as they were.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The next save starts when the last is durable.
    #[error("a checkpoint is still being saved")]
    Busy,
    /// A part could not be put.
    #[error("the checkpoint could not be saved")]
    Store(#[from] CheckpointError),
    /// The tensors make no file.
    #[error("the tensors could not be saved")]
    Tensors(#[from] TensorFileError),
    /// The memory could not be read.
    #[error("the long memory could not be saved")]
    Memory(#[from] MemoryError),
    /// The thread could not be started.
    #[error("the thread that saves checkpoints cannot be started")]
    Thread(#[source] std::io::Error),
    /// The thread is gone.
    #[error("the thread that saves checkpoints has stopped")]
    Stopped,
}

impl Hint for SaveError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Tensors(error) => error.hint(),
            Self::Memory(error) => error.hint(),
            Self::Busy => Some("wait for it, or save less often (`checkpoint.every`)".into()),
            Self::Thread(_) | Self::Stopped => None,
        }
    }
}

/// Saves in the background, one at a time. Dropping it waits for the save in flight, unless that was abandoned.
#[derive(Debug)]
pub struct Saver {
    requests: Option<Sender<(u64, SaveRequest)>>,
    results: Receiver<(u64, Result<SavedParts, SaveError>)>,
    thread: Option<JoinHandle<()>>,
    /// The number of the save in flight.
    in_flight: Option<u64>,
    /// The number of the next save. Those before [`Self::abandoned`] have been given up.
    next: u64,
    abandoned: watch::Sender<u64>,
}

impl Saver {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn new(store: CheckpointStore) -> Result<Self, SaveError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(SaveError::Thread)?;
        let (requests, received) = channel::<(u64, SaveRequest)>();
        let (answers, results) = channel();
        let (abandoned, mut given_up) = watch::channel(0);
        let work = move || {
            while let Ok((number, request)) = received.recv() {
                let result = runtime.block_on(async {
                    tokio::select! {
                        biased;
                        // An error says that the saver is gone, which waits for its thread unless it gave up before.
                        Ok(_) = given_up.wait_for(|before| *before > number) => None,
                        result = upload(&store, request) => Some(result),
                    }
                });
                if result.is_some_and(|result| answers.send((number, result)).is_err()) {
                    break;
                }
            }
            // A write to a disk that hangs is left to itself; a runtime that is dropped would wait for it.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("checkpoint-saver".into()).spawn(work);
        let thread = Some(thread.map_err(SaveError::Thread)?);
        Ok(Self { requests: Some(requests), results, thread, in_flight: None, next: 0, abandoned })
    }

    /// Gives up the save in flight, without waiting for a store that is slow or gone; the next one may begin. What was
    /// uploaded of it is named by no manifest and is swept later.
    pub fn abandon(&mut self) {
        self.abandoned.send_replace(self.next);
        self.in_flight = None;
    }

    /// Begins a save.
    ///
    /// # Errors
    /// The last one has not been asked for yet, or the thread is gone.
    pub fn start(&mut self, request: SaveRequest) -> Result<(), SaveError> {
        if self.is_busy() {
            return Err(SaveError::Busy);
        }
        let requests = self.requests.as_ref().ok_or(SaveError::Stopped)?;
        requests.send((self.next, request)).map_err(|_| SaveError::Stopped)?;
        self.in_flight = Some(self.next);
        self.next += 1;
        Ok(())
    }

    /// Whether a save was started whose result has not been taken.
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The result of the save in flight, once, if there is one yet.
    pub fn poll(&mut self) -> Option<Result<SavedParts, SaveError>> {
        let awaited = self.in_flight?;
        loop {
            let result = match self.results.try_recv() {
                // One that came just before it was given up.
                Ok((number, _)) if number < awaited => continue,
                Ok((_, result)) => result,
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => Err(SaveError::Stopped),
            };
            self.in_flight = None;
            return Some(result);
        }
    }

    /// Waits for the save in flight; nothing where there is none.
    pub fn wait(&mut self) -> Option<Result<SavedParts, SaveError>> {
        let awaited = self.in_flight.take()?;
        loop {
            match self.results.recv() {
                Ok((number, _)) if number < awaited => {}
                Ok((_, result)) => return Some(result),
                Err(_) => return Some(Err(SaveError::Stopped)),
            }
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that saves checkpoints panicked");
        }
    }
}

/// Puts all parts of a request.
async fn upload(store: &CheckpointStore, request: SaveRequest) -> Result<SavedParts, SaveError> {
    let group = request.videos_a_part;
    let segments = request.memory.iter().flat_map(|memory| memory.segments(group));
    let memory = futures::stream::iter(segments)
        .map(|segment| async move {
            let segment = segment?;
            let part = store.put_part(segment.bytes).await?;
            Ok::<_, SaveError>(MemorySegment { lane: segment.lane, videos: segment.videos, part })
        })
        .buffered(UPLOADS_AT_A_TIME)
        .try_collect()
        .await?;
    // One is hashed while the other is written; both have come to their end where one has failed.
    let (model, optimizer) = futures::join!(put(store, request.model), put(store, request.optimizer));
    Ok(SavedParts { model: model?, optimizer: optimizer?, memory })
}

async fn put(store: &CheckpointStore, file: Option<TensorFile>) -> Result<Option<PartRef>, SaveError> {
    match file {
        None => Ok(None),
        Some(file) => Ok(Some(store.put_part(file.into_payload()?).await?)),
    }
}
