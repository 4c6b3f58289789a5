//! What can be wrong with a configuration, each with what to do about it.

use std::io;
use std::path::PathBuf;

use super::BrokenRule;
use crate::hint::{ExitCode, Hint};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration `{}` cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("line {line} of `{}` is not TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// `--set` without `=`.
    #[error("`--set {text}` sets nothing")]
    NotAnAssignment {
        /// What was typed.
        text: String,
    },
    /// A key that no setting has.
    #[error("there is no setting `{key}` ({origin})")]
    UnknownKey {
        /// As written.
        key: String,
        /// Where.
        origin: String,
        /// The setting that was probably meant.
        nearest: Option<String>,
        /// The names that stand in that section.
        section: Vec<String>,
    },
    /// A plain value where a section belongs.
    #[error("`{key}` is a section, but {origin} gives it the value {value}")]
    NotASection {
        /// The section.
        key: String,
        /// The value.
        value: String,
        /// Where.
        origin: String,
    },
    /// A section where a plain value belongs.
    #[error("`{key}` takes one value, but {origin} gives it a section")]
    NotATable {
        /// The setting.
        key: String,
        /// Where.
        origin: String,
    },
    /// A value of another type, or a word that is not among the valid ones.
    #[error("`{key}` cannot be {value} ({origin}): expected {expected}")]
    BadValue {
        /// The setting.
        key: String,
        /// The value as TOML.
        value: String,
        /// Where.
        origin: String,
        /// What would be understood.
        expected: String,
    },
    /// A setting that another detector family reads.
    #[error("`{key}` ({origin}) belongs to the detector `{owner}`, but `model.kind` is `{selected}`")]
    OtherKind {
        /// The setting.
        key: String,
        /// Where it is written.
        origin: String,
        /// The family that reads it.
        owner: &'static str,
        /// The family of the run.
        selected: &'static str,
    },
    /// A value, or several together, against the rules.
    #[error("{rule}{places}")]
    Broken {
        /// The rule.
        rule: Box<BrokenRule>,
        /// Where the settings were made, in parentheses; empty where all are defaults.
        places: String,
        /// What the rule advises.
        hint: Option<String>,
    },
    /// A configuration stored by a run that this version does not understand.
    #[error("the stored configuration is not one of this version: {message}")]
    Stored {
        /// What does not fit.
        message: String,
    },
}

impl Hint for ConfigError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => {
                Some("give the path of a TOML file such as `configs/quickstart.toml`".into())
            }
            Self::Syntax { .. } => None,
            Self::NotAnAssignment { .. } => Some("write `--set data.fps=15`".into()),
            Self::UnknownKey { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::UnknownKey { section, .. } => Some(format!("known here: `{}`", section.join("`, `"))),
            Self::NotASection { key, .. } => {
                Some(format!("set one of its values, or write them below `[{key}]`"))
            }
            Self::NotATable { key, .. } => Some(format!("write `{key} = ...`")),
            Self::BadValue { value, expected, .. } => nearest_word(value, expected),
            Self::OtherKind { key, owner, .. } => {
                Some(format!("remove `{key}`, or set `model.kind = \"{owner}\"`"))
            }
            Self::Broken { hint, .. } => hint.clone(),
            Self::Stored { .. } => Some("use the version of Longtake that started the run".into()),
        }
    }

    /// Settings that are wrong are wrong at every start; only a disk or a network may read a file at the next one.
    fn exit(&self) -> ExitCode {
        match self {
            Self::Read { source, .. } => ExitCode::of_named_file(source),
            _ => ExitCode::NeverRestart,
        }
    }
}

/// The word of a list such as "`sgd` or `adamw`" that was probably meant.
fn nearest_word(value: &str, expected: &str) -> Option<String> {
    let is_list = expected.starts_with('`') || expected.starts_with("one of");
    let value = value.trim_matches('"').to_lowercase();
    let words = expected.split('`').skip(1).step_by(2).filter(|_| is_list);
    words
        .map(|word| (strsim::damerau_levenshtein(word, &value), word))
        .min()
        .filter(|(distance, word)| *distance <= (word.len() / 2).max(1))
        .map(|(_, word)| format!("did you mean `{word}`?"))
}
