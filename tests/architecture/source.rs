//! The source tree as text.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use longtake_tests::repository;

/// One file of the repository.
pub(crate) struct Source {
    /// Path below the repository's root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every Rust file of the four packages.
pub(crate) fn rust_files() -> Vec<Source> {
    let sources = files(&["shared", "coordinator", "worker", "tests"], &["rs"]);
    assert!(sources.len() > 50, "the tree has moved: only {} files found", sources.len());
    sources
}

/// Every file below some folders (or the file itself) with one of these extensions, in order of path.
pub(crate) fn files(below: &[&str], extensions: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for start in below {
        collect(&repository().join(start), &mut paths);
    }
    paths.retain(|path| {
        path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted))
    });
    paths.sort();
    paths
        .into_iter()
        .map(|path| Source {
            text: fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            path: below_repository(&path),
        })
        .collect()
}

fn below_repository(path: &Path) -> String {
    let relative = path.strip_prefix(repository()).unwrap_or(path);
    relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for entry in entries.flatten().filter(|entry| entry.file_name() != "target") {
            collect(&entry.path(), found);
        }
    } else if path.exists() {
        found.push(path.to_owned());
    }
}

impl Source {
    /// Lines before the tests at the end of the file; none of a file that holds only tests.
    pub(crate) fn production_lines(&self) -> Vec<&str> {
        let only_tests = self.path.starts_with("tests/") || self.path.ends_with("tests.rs");
        if only_tests {
            return Vec::new();
        }
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines
            .windows(2)
            .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod "));
        lines[..tests.unwrap_or(lines.len())].to_vec()
    }

    /// Code without comments and without what stands in quotes.
    pub(crate) fn code(&self) -> String {
        self.production_lines().iter().map(|line| bare(line)).collect::<Vec<_>>().join("\n")
    }

    /// Every identifier, and every pair `a::b`, of the code outside tests.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        names_of(&self.code())
    }

    /// The same of all code, tests too.
    pub(crate) fn all_names(&self) -> BTreeSet<String> {
        names_of(&self.text.lines().map(bare).collect::<Vec<_>>().join("\n"))
    }
}

fn names_of(code: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut names = BTreeSet::new();
    for path in code.split(|letter: char| !is_part(letter) && letter != ':') {
        let parts: Vec<&str> = path.split("::").collect();
        names.extend(parts.iter().map(|part| (*part).to_owned()));
        names.extend(parts.windows(2).map(|pair| pair.join("::")));
    }
    names
}

/// A line without its comment and its texts.
fn bare(line: &str) -> String {
    let mut bare = String::new();
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if quoted => drop(letters.next()),
            '"' => quoted = !quoted,
            '/' if !quoted && letters.peek() == Some(&'/') => break,
            letter if !quoted => bare.push(letter),
            _ => {}
        }
    }
    bare
}

#[test]
fn comments_and_texts_are_no_code() {
    let source = Source {
        path: "worker/src/model/x.rs".into(),
        text: "use a::b; // burn\nlet s = \"std::fs \\\" tokio\";\n#[cfg(test)]\nmod tests { use tonic; }\n"
            .into(),
    };
    let names = source.names();
    assert!(names.contains("a::b") && names.contains("let"));
    assert!(["burn", "fs", "tokio", "tonic"].iter().all(|name| !names.contains(*name)), "{names:?}");
}
