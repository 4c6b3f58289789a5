//! Advice that an error carries: printed as `hint: ...` below the sentence that says what is wrong.

use std::io;

/// An error that knows what its reader can do about it.
pub trait Hint: std::error::Error {
    /// What to do, as one sentence without a full stop; nothing where there is nothing to say.
    fn hint(&self) -> Option<String> {
        None
    }

    /// How a command ends that fails with it: [`ExitCode::NeverRestart`] for data or settings that are wrong at every
    /// start, [`ExitCode::Failed`] for what another try may mend.
    fn exit(&self) -> ExitCode {
        ExitCode::Failed
    }
}

/// The exit codes of every Longtake process; schedulers act on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The work is done.
    Done = 0,
    /// Something failed that another try may mend.
    Failed = 1,
    /// The command line could not be understood (what clap returns).
    Usage = 2,
    /// Stopped on request after saving: start me again.
    Preempted = 75,
    /// Never start me again: configuration or data are wrong, or the run makes no progress.
    NeverRestart = 78,
    /// Ended by a signal before there was anything to keep: nothing half-written is left (128 + SIGINT, as shells have it).
    Interrupted = 130,
}

impl ExitCode {
    /// As the operating system takes it.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What a process meant by its code; anything unknown is a failure.
    pub fn of_code(code: u32) -> Self {
        [Self::Done, Self::Usage, Self::Preempted, Self::NeverRestart, Self::Interrupted]
            .into_iter()
            .find(|known| u32::from(known.code()) == code)
            .unwrap_or(Self::Failed)
    }

    /// What a file that the user named and that cannot be opened means: a wrong path stays wrong, a disk or a network
    /// that fails may work at the next try.
    pub fn of_named_file(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData => Self::NeverRestart,
            _ => Self::Failed,
        }
    }
}

/// What every command ends with when it fails: one sentence, what to do, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong and where, as one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// How the process ends.
    pub exit: ExitCode,
}

impl Failure {
    /// A failure with exit code 1 and no advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: ExitCode::Failed }
    }

    /// With advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failure that no restart mends (exit code 78).
    #[must_use]
    pub fn never_restart(mut self) -> Self {
        self.exit = ExitCode::NeverRestart;
        self
    }

    /// The end of a command that a signal has asked to stop (exit code 130).
    pub fn interrupted() -> Self {
        let message = "stopped by a signal: nothing half-written is left".to_owned();
        Self { message, hint: None, exit: ExitCode::Interrupted }
    }
}

impl<E: Hint> From<E> for Failure {
    /// The error and its causes as one sentence.
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            if !message.contains(&inner_text) {
                message = format!("{message}: {inner_text}");
            }
            cause = inner.source();
        }
        Self { message, hint: error.hint(), exit: error.exit() }
    }
}
