//! Errors for users: one sentence with all causes, a hint that is printed below it as `hint: ...`, and the exit code.

use std::io;

/// An error that can advise its reader.
pub trait Hint: std::error::Error {
    /// Advice as one sentence without a full stop, if there is any.
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
    /// The command succeeded.
    Done = 0,
    /// The command failed; a retry may succeed.
    Failed = 1,
    /// The command line is invalid (the code of clap).
    Usage = 2,
    /// The run was stopped on request and has saved; restart it.
    Preempted = 75,
    /// The run must not be restarted: settings or data are wrong, or it makes no progress.
    NeverRestart = 78,
    /// Ended by a signal before there was anything to keep: nothing half-written is left (128 + SIGINT, as shells have it).
    Interrupted = 130,
}

impl ExitCode {
    /// The number that the process returns.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The meaning of a number that a process returned; an unknown one is a failure.
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

/// The failure of a command.
#[derive(Debug)]
pub struct Failure {
    /// The problem and its place, as one sentence without a full stop.
    pub message: String,
    /// Advice for the user.
    pub hint: Option<String>,
    /// Exit code of the process.
    pub exit: ExitCode,
}

impl Failure {
    /// A failure with exit code 1 and no advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: ExitCode::Failed }
    }

    /// Adds advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failure that no restart can resolve (exit code 78).
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
    /// The error and its causes as one sentence, with the hint of the error.
    fn from(error: E) -> Self {
        Self { message: with_causes(&error), hint: error.hint(), exit: error.exit() }
    }
}

/// An error and its causes as one sentence; a cause that the sentence already contains is left out.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    append_causes(&mut sentence, error);
    sentence
}

/// Appends the causes of an error to a sentence about it; a cause that the sentence already contains is left out.
pub fn append_causes(sentence: &mut String, error: &dyn std::error::Error) {
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !sentence.contains(&text) {
            sentence.push_str(": ");
            sentence.push_str(&text);
        }
        cause = inner.source();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    impl Hint for Layer {}

    fn layer(text: &'static str, source: Option<Layer>) -> Layer {
        Layer { text, source: source.map(Box::new) }
    }

    #[test]
    fn causes_are_appended_once() {
        let error = layer(
            "cannot read `a`",
            Some(layer("disk full", Some(layer("disk", Some(layer("os error", None)))))),
        );
        assert_eq!(with_causes(&error), "cannot read `a`: disk full: os error");
        assert_eq!(Failure::from(error).message, "cannot read `a`: disk full: os error");
        let mut sentence = "the link broke".to_owned();
        append_causes(&mut sentence, &layer("not repeated", Some(layer("reset by peer", None))));
        assert_eq!(sentence, "the link broke: reset by peer");
    }
}
