//! A store that fails where a test tells it to: the nth write fails, is torn, is lost, meets a full disk, is slow.

use std::fmt;
use std::ops::RangeFrom;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written; an error comes back.
    Fail,
    /// All is written; an error comes back all the same.
    Unacknowledged,
    /// The first half is written; an error comes back.
    Torn,
    /// Nothing is written: the disk is full.
    Full,
    /// All is written after a pause.
    Slow(Duration),
}

/// A store whose writes meet faults by their number, counted from 0.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    writes: AtomicU64,
    faults: Mutex<Vec<(u64, Option<u64>, Fault)>>,
}

impl FaultyStore {
    /// A store without faults.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, writes: AtomicU64::new(0), faults: Mutex::new(Vec::new()) }
    }

    /// The write of this number meets a fault.
    #[must_use]
    pub fn at(self, write: u64, fault: Fault) -> Self {
        self.add(write, Some(write), fault);
        self
    }

    /// All writes from this number on meet a fault, as after the death of a process or a disk.
    #[must_use]
    pub fn from(self, writes: RangeFrom<u64>, fault: Fault) -> Self {
        self.add(writes.start, None, fault);
        self
    }

    /// Writes seen so far.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    fn add(&self, first: u64, last: Option<u64>, fault: Fault) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push((first, last, fault));
    }

    fn fault_of(&self, write: u64) -> Option<Fault> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults
            .iter()
            .find(|(first, last, _)| write >= *first && last.is_none_or(|last| write <= last))
            .map(|(_, _, fault)| *fault)
    }
}

fn injected(kind: std::io::ErrorKind, what: &str) -> Error {
    Error::Generic { store: "FaultyStore", source: Box::new(std::io::Error::new(kind, what.to_owned())) }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        use std::io::ErrorKind;
        let write = self.writes.fetch_add(1, Ordering::SeqCst);
        match self.fault_of(write) {
            None => self.inner.put_opts(location, payload, opts).await,
            Some(Fault::Fail) => Err(injected(ErrorKind::ConnectionReset, "injected failure")),
            Some(Fault::Full) => Err(injected(ErrorKind::StorageFull, "no space left on device")),
            Some(Fault::Unacknowledged) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(injected(ErrorKind::TimedOut, "injected loss of the answer"))
            }
            Some(Fault::Torn) => {
                let whole = Bytes::from(payload);
                let half = whole.slice(..whole.len() / 2);
                self.inner.put_opts(location, half.into(), opts).await?;
                Err(injected(ErrorKind::BrokenPipe, "injected torn write"))
            }
            Some(Fault::Slow(pause)) => {
                tokio::time::sleep(pause).await;
                self.inner.put_opts(location, payload, opts).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
