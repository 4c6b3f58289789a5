//! The data path can be followed by its headers: what one hop gives, the next one takes.

use std::collections::BTreeMap;

use longtake_tests::repository;

use crate::source::rust_files;

/// What a hop's header says: `Takes: ...`, `Gives: ...`, ``Next: [`crate::...`]``.
#[derive(Debug, Default)]
struct Hop {
    takes: Option<String>,
    gives: Option<String>,
    next: Option<String>,
}

/// The rooms in the order the data flows, as `docs/DATA_PATH.md` lists them; each names the next one in its header.
const ROUTE: [&str; 7] =
    ["data", "model::backbone", "model::memory", "model::heads", "train", "collective", "optim"];

const LABELS: [&str; 3] = ["Takes:", "Gives:", "Next:"];

impl Hop {
    /// Each label's text runs to the next label or to the end of its paragraph.
    fn of(text: &str) -> Self {
        let header: Vec<&str> =
            text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let mut hop = Self::default();
        for paragraph in header.split(|line| line.is_empty()) {
            let paragraph = paragraph.join(" ");
            let after = |label: &str| {
                let (_, rest) = paragraph.split_once(label)?;
                let end = LABELS.iter().filter_map(|other| rest.find(other)).min().unwrap_or(rest.len());
                Some(rest[..end].trim().to_owned())
            };
            hop.takes = hop.takes.or_else(|| after("Takes:"));
            hop.gives = hop.gives.or_else(|| after("Gives:"));
            hop.next = hop.next.or_else(|| after("Next:"));
        }
        hop
    }
}

/// The first shape in backticks, such as `[B, C, T]`.
fn shape(text: &str) -> Option<&str> {
    text.split('`').skip(1).step_by(2).find(|quoted| quoted.starts_with('['))
}

/// The first thing in backticks.
fn quoted(text: &str) -> Option<&str> {
    text.split('`').nth(1)
}

/// `worker/src/model/neck/mod.rs` is `crate::model::neck`.
fn module(path: &str) -> Option<String> {
    let inner = path.strip_prefix("worker/src/")?.strip_suffix(".rs")?;
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    Some(format!("crate::{}", inner.replace('/', "::")))
}

fn hops() -> BTreeMap<String, Hop> {
    let headers = rust_files().into_iter();
    headers.filter_map(|source| Some((module(&source.path)?, Hop::of(&source.text)))).collect()
}

#[test]
fn the_whole_route_can_be_followed() {
    let hops = hops();
    for pair in ROUTE.windows(2) {
        let hop = &hops[&format!("crate::{}", pair[0])];
        let next = hop.next.as_deref().and_then(quoted);
        assert_eq!(next, Some(format!("crate::{}", pair[1]).as_str()), "after {}", pair[0]);
    }
    for room in ROUTE {
        let hop = &hops[&format!("crate::{room}")];
        assert!(hop.takes.is_some() && hop.gives.is_some(), "{room} says what it takes and what it gives");
    }
}

#[test]
fn the_page_about_the_route_lists_its_rooms_in_order() {
    let page = std::fs::read_to_string(repository().join("docs/DATA_PATH.md")).unwrap();
    let column =
        page.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|')?.rsplit('|').next());
    let mut rooms: Vec<String> = column
        .filter_map(quoted)
        .filter_map(|room| room.strip_prefix("worker/src/").map(|room| room.replace('/', "::")))
        .filter(|room| ROUTE.contains(&room.as_str()))
        .collect();
    rooms.dedup();
    // Rows are written back last, after the step has committed.
    assert_eq!(rooms.pop().as_deref(), Some("model::memory"));
    assert_eq!(rooms, ROUTE);
}

#[test]
fn each_hop_gives_what_the_next_one_takes() {
    let hops = hops();
    for (name, hop) in &hops {
        let Some(next) = hop.next.as_deref().and_then(quoted).filter(|next| next.starts_with("crate::"))
        else {
            continue;
        };
        let target = hops.get(next).unwrap_or_else(|| panic!("{name}: the next hop `{next}` does not exist"));
        let gives = hop.gives.as_deref();
        let gives = gives.unwrap_or_else(|| panic!("{name} names a next hop but not what it gives"));
        let taken = target.takes.as_deref().and_then(shape);
        if let Some((given, taken)) = shape(gives).zip(taken) {
            assert_eq!(given, taken, "{name} gives {given}, but {next} takes {taken}");
        }
    }
}

#[test]
fn headers_are_read_over_several_lines() {
    let header = "//! Clips.\n//!\n//! Takes: `[N, 3]`\n//! and keys. Gives: n of `[N, C]`.\n//! Next: [`crate::loss`].\n";
    let hop = Hop::of(header);
    assert_eq!(hop.takes.as_deref(), Some("`[N, 3]` and keys."));
    assert_eq!(hop.gives.as_deref().and_then(shape), Some("[N, C]"));
    assert_eq!(hop.next.as_deref().and_then(quoted), Some("crate::loss"));
}
