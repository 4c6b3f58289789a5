//! Every file says what it is for, stays short enough to be read, and hides nothing.

use crate::source::{files, rust_files};

const LINES_MAX: usize = 600;

/// Files that may be longer: path, lines they have at most, why. They may shrink, never grow.
const LONGER: [(&str, usize, &str); 0] = [];

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent: Vec<String> = rust_files()
        .into_iter()
        .filter(|source| !source.path.ends_with("tests.rs"))
        .filter(|source| {
            let first = source.text.lines().next().unwrap_or_default();
            !first.starts_with("//! ") || first.len() < 16 || first.contains("to be written")
        })
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "the first line must be a `//!` sentence in: {silent:#?}");
}

#[test]
fn files_are_short_enough_to_be_read() {
    for source in rust_files() {
        let lines = source.production_lines().len();
        match LONGER.iter().find(|(path, _, _)| *path == source.path) {
            Some((path, most, why)) => {
                assert!(lines <= *most, "{path} has grown from {most} to {lines} lines ({why}): divide it");
                assert!(lines > LINES_MAX, "{path} is short enough now: take it off the list");
            }
            None => {
                assert!(lines <= LINES_MAX, "{} has {lines} lines: find the missing concept", source.path);
            }
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let left = [["#[ign", "ore"].concat(), ["todo", "!("].concat(), ["unimplemented", "!("].concat()];
    for source in rust_files() {
        for text in &left {
            assert!(!source.text.contains(text), "{} contains `{text}`", source.path);
        }
    }
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let machine = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat()];
    let everything = [
        "shared",
        "coordinator",
        "worker",
        "tests",
        "configs",
        "deploy",
        "docs",
        "README.md",
        "CHANGELOG.md",
        "Cargo.toml",
        ".config",
    ];
    for source in files(&everything, &["rs", "toml", "md", "sh", "proto", "svg", "snap"]) {
        for path in &machine {
            assert!(!source.text.contains(path), "{} names `{path}`", source.path);
        }
    }
}
