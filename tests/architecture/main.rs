//! Rules about the code itself: who may know whom, how long a file may be, what must not be there.

#![allow(missing_docs, reason = "tests are sentences")]

mod data_path;
mod directions;
mod documents;
mod families;
mod files;
mod rooms;
mod rules;
mod source;
