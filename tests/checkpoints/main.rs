//! Checkpoints on real folders and in real stores behind HTTP: crashes, races, damage, and answers that go wrong.

#![allow(missing_docs, reason = "tests are sentences")]

mod commands;
mod conformance;
mod crashes;
mod damage;
mod faults;
mod proxy;
mod races;
mod servers;
mod support;
