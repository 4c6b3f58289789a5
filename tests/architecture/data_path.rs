//! The data path can be followed by its headers: what one hop gives, the next one takes.

use std::collections::BTreeMap;

use crate::source::rust_files;

/// What a hop's header says: `//! Takes: ...`, `//! Gives: ...`, `//! Next: [`crate::...`]`.
#[derive(Debug, Default)]
struct Hop {
    takes: Option<String>,
    gives: Option<String>,
    next: Option<String>,
}

impl Hop {
    fn of(text: &str) -> Self {
        let header: Vec<&str> =
            text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let mut hop = Self::default();
        for (index, line) in header.iter().enumerate() {
            let rest = header[index + 1..].iter().take_while(|next| !next.is_empty() && !labelled(next));
            let whole = || rest.clone().fold((*line).to_owned(), |text, next| format!("{text} {next}"));
            if line.starts_with("Takes:") {
                hop.takes = Some(whole());
            } else if line.starts_with("Gives:") {
                hop.gives = Some(whole());
            } else if line.starts_with("Next:") {
                hop.next = Some(whole());
            }
        }
        hop
    }
}

fn labelled(line: &str) -> bool {
    ["Takes:", "Gives:", "Next:"].iter().any(|label| line.starts_with(label))
}

/// The first thing in backticks: a shape or a module.
fn quoted(line: &str) -> Option<&str> {
    line.split('`').nth(1)
}

/// `worker/src/model/tcm/mod.rs` is `crate::model::tcm`.
fn module(path: &str) -> Option<String> {
    let inner = path.strip_prefix("worker/src/")?.strip_suffix(".rs")?;
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    Some(format!("crate::{}", inner.replace('/', "::")))
}

#[test]
fn each_hop_gives_what_the_next_one_takes() {
    let hops: BTreeMap<String, Hop> = rust_files()
        .into_iter()
        .filter_map(|source| Some((module(&source.path)?, Hop::of(&source.text))))
        .collect();
    for (name, hop) in &hops {
        let Some(next) = hop.next.as_deref().and_then(quoted).filter(|next| next.starts_with("crate::"))
        else {
            continue;
        };
        let target = hops.get(next).unwrap_or_else(|| panic!("{name}: the next hop `{next}` does not exist"));
        let gives =
            hop.gives.as_deref().unwrap_or_else(|| panic!("{name} names a next hop but not what it gives"));
        let given = quoted(gives).unwrap_or_else(|| panic!("{name}: put the shape in backticks: {gives}"));
        if let Some(taken) = target.takes.as_deref().and_then(quoted) {
            assert_eq!(given, taken, "{name} gives {given}, but {next} takes {taken}");
        }
    }
}

#[test]
fn headers_are_read_over_several_lines() {
    let hop = Hop::of(
        "//! Clips.\n//!\n//! Takes: `[N, 3]`\n//! and keys.\n//! Gives: `[N, C]`.\n//! Next: [`crate::loss`].\n",
    );
    assert_eq!(hop.takes.as_deref(), Some("Takes: `[N, 3]` and keys."));
    assert_eq!(hop.gives.as_deref().and_then(quoted), Some("[N, C]"));
    assert_eq!(hop.next.as_deref().and_then(quoted), Some("crate::loss"));
}
