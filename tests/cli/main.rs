//! What the terminal shows, word for word: the real program in an empty folder.

#![allow(missing_docs, reason = "tests are sentences")]
#![allow(clippy::unwrap_used, reason = "support of tests, whose failure is a panic")]

use longtake_tests::{Call, Said};

fn longtake(words: &str) -> Said {
    let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
    longtake_in(folder.path(), words)
}

fn longtake_in(folder: &std::path::Path, words: &str) -> Said {
    Call::new(env!("CARGO_BIN_EXE_longtake-under-test"), folder).typed(words).run()
}

mod errors;
mod help;
mod reports;
