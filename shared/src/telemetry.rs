//! Logging set-up, and the names of the fields that log lines carry.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::hint::Hint;

/// The variable that says what is logged, in `tracing`'s notation: `info,longtake_worker=debug`.
pub const LOG_VARIABLE: &str = "LONGTAKE_LOG";

/// Fields of log lines; every process uses these names.
pub mod fields {
    /// The run's name.
    pub const RUN: &str = "run";
    /// How often a coordinator of the run has started.
    pub const INCARNATION: &str = "incarnation";
    /// Membership of the run between two changes.
    pub const GENERATION: &str = "generation";
    /// Optimizer steps committed so far.
    pub const STEP: &str = "step";
    /// Position of a worker in its generation.
    pub const RANK: &str = "rank";
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logging that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A filter in another notation.
    #[error("the log filter `{filter}` is not understood: {message}")]
    BadFilter {
        /// As given.
        filter: String,
        /// What the parser says.
        message: String,
    },
    /// Logging was set up before in this process.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

impl Hint for TelemetryError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::BadFilter { .. } => {
                Some(format!("set `{LOG_VARIABLE}` to a filter such as `info,longtake_worker=debug`"))
            }
            Self::AlreadySet => None,
        }
    }
}

/// Sends log lines to standard error from here on; `filter` is what [`LOG_VARIABLE`] holds, or a default such as `info`.
///
/// # Errors
/// A filter that is not understood, or a second call.
pub fn init(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let filter = parse(filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    set.map_err(|_| TelemetryError::AlreadySet)
}

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(filter)
        .map_err(|error| TelemetryError::BadFilter { filter: filter.to_owned(), message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_anything_is_logged() {
        assert!(parse("info,longtake_worker=debug").is_ok());
        let error = parse("longtake_worker=loud").unwrap_err();
        assert!(error.to_string().contains("`longtake_worker=loud`"), "{error}");
        assert!(error.hint().unwrap().contains(LOG_VARIABLE));
    }
}
