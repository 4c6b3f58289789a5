//! The stop signals of a process, as an argument of whoever must obey them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::run::event::StopSource;

/// Where stop signals come from.
#[derive(Debug)]
pub struct Signals(Source);

#[derive(Debug)]
enum Source {
    Process { interrupt: Signal, terminate: Signal, user: Signal, hangup: Option<Signal> },
    Channel(mpsc::Receiver<StopSource>),
}

impl Signals {
    /// SIGINT, SIGTERM, SIGUSR1 and SIGHUP of this process, from now on. SIGHUP stays ignored where the process was started
    /// that way, as `nohup` does. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hangup = if ignores_hangup(&status) { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self(Source::Process {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            user: signal(SignalKind::user_defined1())?,
            hangup,
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
            Source::Process { interrupt, terminate, user, hangup } => tokio::select! {
                next = interrupt.recv() => next.map(|()| StopSource::Interrupt),
                next = terminate.recv() => next.map(|()| StopSource::Scheduler),
                next = user.recv() => next.map(|()| StopSource::Scheduler),
                next = next_of(hangup) => next.map(|()| StopSource::Scheduler),
            },
            Source::Channel(receiver) => receiver.recv().await,
        };
        match next {
            Some(source) => source,
            None => std::future::pending().await,
        }
    }
}

async fn next_of(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether the kernel's description of a process says that it ignores SIGHUP: bit 0 of the mask `SigIgn` (proc(5)).
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Obeys the stop signals of a process while it has no run that would.
#[derive(Debug)]
pub struct Watch(Arc<AtomicBool>);

impl Watch {
    /// From now on a thread calls `obey` for each stop signal, until this is dropped.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn begin(mut obey: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let mut signals = {
            let _within = runtime.enter();
            Signals::install()?
        };
        let watching = Arc::new(AtomicBool::new(true));
        let watched = Arc::clone(&watching);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    signals.next().await;
                    if watched.load(Ordering::Acquire) {
                        obey();
                    }
                }
            });
        })?;
        Ok(Self(watching))
    }
}

impl Drop for Watch {
    /// The thread lives as long as the process; the signals belong to whoever has installed [`Signals`] since.
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hangup_is_read_from_the_mask_of_the_kernel() {
        assert!(ignores_hangup("Name:\tlongtake\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"));
        assert!(!ignores_hangup("Name:\tlongtake\nSigIgn:\t0000000000001000\nSigCgt:\t1\n"));
        assert!(!ignores_hangup(""));
    }
}
