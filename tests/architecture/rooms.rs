//! Rooms, the top-level modules of a package, depend on each other in one direction: their `crate::...` paths form no cycle.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, files};

/// Rooms of a package and the rooms that each names.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Cycles that still exist: package, two rooms that name each other, and the reason.
const CYCLES: [(&str, [&str; 2], &str); 0] = [];

/// The room of a file, by its path below `src`; none for `lib.rs` and `main.rs`.
fn room(path: &str) -> Option<&str> {
    let first = path.split('/').next()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "main"].contains(&room)).then_some(room)
}

/// Names that follow `crate::` in the code, those in braces too.
fn named_after_crate(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let path = &code[at + "crate::".len()..];
        let Some(group) = path.strip_prefix('{') else {
            names.insert(identifier(path).to_owned());
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, letter) in group.char_indices() {
            match letter {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                letter if begins && (letter.is_alphanumeric() || letter == '_') => {
                    names.insert(identifier(&group[at..]).to_owned());
                    begins = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn identifier(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    &text[..end.unwrap_or(text.len())]
}

/// Names that the package's root re-exports, with the room they come from.
fn re_exports(root: &Source) -> BTreeMap<String, String> {
    let code = root.code();
    let mut exports = BTreeMap::new();
    for statement in code.split(';').map(str::trim_start) {
        let Some((_, path)) = statement.rsplit_once("pub use ") else { continue };
        let room = identifier(path.trim_start_matches("crate::"));
        let (_, last) = path.rsplit_once("::").unwrap_or(("", path));
        for name in last.trim_matches(['{', '}', ' ', '\n']).split(',') {
            exports.insert(identifier(name.trim()).to_owned(), room.to_owned());
        }
    }
    exports
}

/// The rooms of a package, each with the others that its production code names.
fn graph(package: &str) -> Graph {
    let base = format!("{package}/src/");
    let sources = files(&[&base], &["rs"]);
    let below = |source: &Source| source.path[base.len()..].to_owned();
    let rooms: BTreeSet<String> =
        sources.iter().filter_map(|source| room(&below(source)).map(str::to_owned)).collect();
    let root = sources.iter().find(|source| below(source) == "lib.rs").expect("a package has a root");
    let exports = re_exports(root);
    let mut graph = Graph::new();
    for source in sources.iter().filter(|source| !is_test(&source.path)) {
        let path = below(source);
        let Some(room) = room(&path) else { continue };
        let others = graph.entry(room.to_owned()).or_default();
        for name in named_after_crate(&source.code()) {
            let named = exports.get(&name).cloned().unwrap_or(name);
            if named != room && rooms.contains(&named) {
                others.insert(named);
            }
        }
    }
    graph
}

fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.split('/').any(|part| part == "tests" || part.ends_with("_tests"))
}

/// Pairs of rooms of which the first names the second and the second leads back to the first.
fn cycles(graph: &Graph) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (room, others) in graph {
        for other in others {
            if reachable(graph, other).contains(room) {
                found.insert((room.clone(), other.clone()));
            }
        }
    }
    found
}

fn reachable(graph: &Graph, from: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![from.to_owned()];
    while let Some(room) = waiting.pop() {
        for other in graph.get(&room).into_iter().flatten() {
            if reached.insert(other.clone()) {
                waiting.push(other.clone());
            }
        }
    }
    reached
}

#[test]
fn rooms_form_no_cycle() {
    for package in ["shared", "coordinator", "worker"] {
        let known: BTreeSet<(String, String)> = CYCLES
            .iter()
            .filter(|(of, ..)| *of == package)
            .flat_map(|(_, [one, other], _)| [(one, other), (other, one)])
            .map(|(one, other)| ((*one).to_owned(), (*other).to_owned()))
            .collect();
        let found = cycles(&graph(package));
        let new: Vec<_> = found.difference(&known).collect();
        assert!(new.is_empty(), "rooms of `{package}` depend on each other: {new:?}");
        let gone: Vec<_> = known.difference(&found).collect();
        assert!(gone.is_empty(), "these rooms of `{package}` form no cycle any more, remove them: {gone:?}");
    }
}

#[test]
fn cycles_are_found_over_braces_and_several_rooms() {
    let code = "use crate::{a::{x, y}, b, Thing}; fn f() { crate::c::g() }";
    let names: Vec<String> = named_after_crate(code).into_iter().collect();
    assert_eq!(names, ["Thing", "a", "b", "c"]);
    let graph: Graph = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]
        .map(|(room, other)| (room.to_owned(), BTreeSet::from([other.to_owned()])))
        .into();
    let found: Vec<String> = cycles(&graph).into_iter().map(|(one, other)| one + &other).collect();
    assert_eq!(found, ["ab", "bc", "ca"]);
}
