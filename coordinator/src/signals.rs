//! The stop signals of a process, as an argument of whoever must obey them.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::run::event::StopSource;

/// Where stop signals come from.
#[derive(Debug)]
pub struct Signals(Source);

#[derive(Debug)]
enum Source {
    Process { interrupt: Signal, terminate: Signal, user: Signal },
    Channel(mpsc::Receiver<StopSource>),
}

impl Signals {
    /// SIGINT, SIGTERM and SIGUSR1 of this process, from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        Ok(Self(Source::Process {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            user: signal(SignalKind::user_defined1())?,
        }))
    }

    /// What a test or another part of the program sends.
    pub fn channel() -> (mpsc::Sender<StopSource>, Self) {
        let (sender, receiver) = mpsc::channel(4);
        (sender, Self(Source::Channel(receiver)))
    }

    /// Waits for the next one; forever where none can come any more. May be dropped and called again.
    pub async fn next(&mut self) -> StopSource {
        let next = match &mut self.0 {
            Source::Process { interrupt, terminate, user } => tokio::select! {
                next = interrupt.recv() => next.map(|()| StopSource::Interrupt),
                next = terminate.recv() => next.map(|()| StopSource::Scheduler),
                next = user.recv() => next.map(|()| StopSource::Scheduler),
            },
            Source::Channel(receiver) => receiver.recv().await,
        };
        match next {
            Some(source) => source,
            None => std::future::pending().await,
        }
    }
}
