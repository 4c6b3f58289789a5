//! A mark in the store for as long as somebody reads checkpoints, so that a sweep spares what is being read.
//!
//! A reader marks itself, then reads manifests, then parts. A sweep removes manifests, then looks for marks, then removes
//! parts. So a manifest that a reader has found is either kept, or it was removed after the reader had marked itself and
//! before the sweep looked: then the sweep sees the mark. A mark of a reader that has died ends by itself.

use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::ContentHash;
use super::store::{CheckpointError, CheckpointStore};

/// How long a mark holds unless it is renewed. Clocks of two machines differ by much less, and for no longer does a reader
/// that died keep sweeps from their work.
const HOLDS: Duration = Duration::from_mins(10);

/// The age at which a mark is renewed: several renewals may come late before one is too late.
const RENEWED_AT: Duration = Duration::from_mins(2);

/// Somebody who reads. Once it has ended or run out, a sweep may remove what it reads.
#[derive(Debug)]
pub struct Reading {
    store: CheckpointStore,
    who: String,
    mark: String,
    renewed: SystemTime,
}

impl CheckpointStore {
    /// Marks a reader; only manifests that are read afterwards are spared. `who` is unlike anybody else's.
    ///
    /// # Errors
    /// The object store failed.
    pub async fn begin_reading(&self, who: &str, now: SystemTime) -> Result<Reading, CheckpointError> {
        let mark = self.mark(who, now).await?;
        Ok(Reading { store: self.clone(), who: who.to_owned(), mark, renewed: now })
    }

    /// Reads under a mark, which is taken away whatever comes of it. `who` is unlike anybody else's.
    ///
    /// # Errors
    /// Those of `read`; or the mark could not be put.
    pub async fn read_marked<T, E: From<CheckpointError>>(
        &self,
        who: &str,
        clock: impl Fn() -> SystemTime,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut reading = self.begin_reading(who, clock()).await?;
        let outcome = reading.during(clock, read).await;
        if let Err(error) = reading.end().await {
            tracing::warn!(%error, "the mark of a reader stays until it ends by itself");
        }
        outcome
    }

    async fn mark(&self, who: &str, now: SystemTime) -> Result<String, CheckpointError> {
        let until = seconds(now + HOLDS);
        let mark = format!("readers/{until}-{}", ContentHash::of(who.as_bytes()));
        self.objects.put(&mark, Bytes::from(who.to_owned())).await?;
        Ok(mark)
    }

    /// Whether anybody reads; marks that have run out are removed.
    pub(super) async fn is_read(&self, now: SystemTime) -> Result<bool, CheckpointError> {
        let mut read = false;
        for (mark, _) in self.objects.list("readers").await? {
            let until = mark.strip_prefix("readers/").and_then(|name| name.split('-').next()?.parse().ok());
            if until.is_some_and(|until: u64| until < seconds(now)) {
                self.objects.delete(&mark).await?;
            } else {
                read = true;
            }
        }
        Ok(read)
    }
}

impl Reading {
    /// Reads something, and renews the mark for as long as that takes.
    ///
    /// # Errors
    /// Those of `read`; or the mark could not be renewed.
    pub async fn during<T, E: From<CheckpointError>>(
        &mut self,
        clock: impl Fn() -> SystemTime,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut read = pin!(read);
        loop {
            self.renew(clock()).await?;
            if let Ok(outcome) = tokio::time::timeout(RENEWED_AT, &mut read).await {
                return outcome;
            }
        }
    }

    async fn renew(&mut self, now: SystemTime) -> Result<(), CheckpointError> {
        if now.duration_since(self.renewed).is_ok_and(|passed| passed >= RENEWED_AT) {
            let next = self.store.mark(&self.who, now).await?;
            let last = std::mem::replace(&mut self.mark, next);
            self.renewed = now;
            if last != self.mark {
                self.store.objects.delete(&last).await?;
            }
        }
        Ok(())
    }

    /// Reads no more.
    ///
    /// # Errors
    /// The object store failed; the mark then ends by itself.
    pub async fn end(self) -> Result<(), CheckpointError> {
        Ok(self.store.objects.delete(&self.mark).await?)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
