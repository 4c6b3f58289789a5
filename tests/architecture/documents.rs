//! Documents do not promise what the program cannot do: commands parse, links lead somewhere.

use clap::Parser as _;
use clap::error::ErrorKind;
use longtake_coordinator::cli::Cli;
use longtake_tests::repository;

use crate::source::{Source, files};

fn documents() -> Vec<Source> {
    let documents = files(&["README.md", "CHANGELOG.md", "docs", "configs", "deploy"], &["md"]);
    assert!(documents.iter().any(|document| document.path == "README.md"));
    documents
}

/// The command lines of a document: in fenced blocks, and between backticks.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut fenced = false;
    let joined = text.replace("\\\n", " ");
    for line in joined.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            commands.extend(command(line.trim().trim_start_matches("$ ")));
        } else {
            commands.extend(line.split('`').skip(1).step_by(2).filter_map(command));
        }
    }
    commands
}

/// The words after the program's name, where a line calls it with any.
fn command(line: &str) -> Option<String> {
    let line = line.split(" #").next().unwrap_or(line);
    let words = ["longtake ", "cargo run --release -- ", "./target/release/longtake "]
        .iter()
        .find_map(|program| line.strip_prefix(program))?;
    Some(words.trim().to_owned()).filter(|words| !words.is_empty())
}

/// A command that is only named, as in "`longtake train` resumes", needs no arguments.
#[test]
fn every_command_in_the_documents_can_be_typed() {
    let mut wrong = Vec::new();
    for document in documents() {
        for words in commands(&document.text) {
            let typed = std::iter::once("longtake").chain(words.split_whitespace());
            if let Err(error) = Cli::try_parse_from(typed)
                && error.exit_code() != 0
                && (error.kind() != ErrorKind::MissingRequiredArgument || words.contains(' '))
            {
                wrong.push(format!("{}: `longtake {words}`: {}", document.path, first_line(&error)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn first_line(error: &clap::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_readme_shows_the_quick_start() {
    let readme = documents().into_iter().find(|document| document.path == "README.md").unwrap();
    assert!(commands(&readme.text).iter().any(|words| words == "train configs/quickstart.toml"));
}

#[test]
fn links_lead_somewhere() {
    for document in documents() {
        let folder = repository().join(&document.path);
        let folder = folder.parent().unwrap();
        for target in document.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || target.contains("://") {
                continue;
            }
            assert!(
                folder.join(file).exists(),
                "{} links to `{target}`, which does not exist",
                document.path
            );
        }
    }
}

#[test]
fn the_reader_of_documents_finds_commands() {
    let text = "`longtake status runs/x` and `longtake`\n```sh\n$ longtake train a.toml \\\n  --json # comment\n```\n";
    assert_eq!(commands(text), ["status runs/x", "train a.toml    --json"]);
}
