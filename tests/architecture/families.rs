//! Detector families and backbones are known in their own rooms, and where a kind is chosen; nowhere else.

use crate::source::{Source, rust_files};

/// Words of families, and the places that may use them.
struct Family {
    words: &'static [&'static str],
    rooms: &'static [&'static str],
}

/// The two enums that hold one variant a family, and the benchmark of a published size.
const ELSEWHERE: [&str; 3] =
    ["worker/src/model/heads/mod.rs", "worker/src/model/backbone/mod.rs", "worker/src/bench/"];

const FAMILIES: [Family; 2] = [
    Family { words: &["daotad", "anchor", "retina"], rooms: &["worker/src/model/heads/daotad/"] },
    Family { words: &["swin"], rooms: &["worker/src/model/backbone/swin/"] },
];

/// Words of families outside their rooms, in code and comments; the line that cites a published file may name it.
fn strangers(source: &Source) -> Vec<String> {
    let lines = source.production_lines();
    let text: Vec<&str> = lines.into_iter().filter(|line| !line.contains("`vedatad/")).collect();
    let text = text.join("\n").to_lowercase();
    let named = |family: &Family| {
        let at_home = family.rooms.iter().chain(&ELSEWHERE).any(|place| source.path.starts_with(place));
        let words = family.words.iter().filter(|word| !at_home && text.contains(**word));
        words.map(|word| format!("{} uses the word `{word}`", source.path)).collect::<Vec<_>>()
    };
    FAMILIES.iter().flat_map(named).collect()
}

#[test]
fn no_family_is_named_outside_its_room() {
    let worker = rust_files().into_iter().filter(|source| source.path.starts_with("worker/src/"));
    let found: Vec<String> = worker.flat_map(|source| strangers(&source)).collect();
    assert!(found.is_empty(), "a family shows through its seam:\n{}", found.join("\n"));
}

#[test]
fn a_family_that_shows_through_is_found() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let step = source("worker/src/train/step/pure.rs", "let grid = AnchorGrid::new();\n");
    assert_eq!(strangers(&step), ["worker/src/train/step/pure.rs uses the word `anchor`"]);
    let cited = source("worker/src/model/neck/x.rs", "/// TALLFormer `vedatad/swin_1d.py`\n");
    assert!(strangers(&cited).is_empty());
    let home = source("worker/src/model/heads/daotad/anchors.rs", "struct AnchorGrid;\n");
    assert!(strangers(&home).is_empty());
}

#[test]
fn the_page_about_a_new_detector_names_files_that_exist() {
    let page =
        std::fs::read_to_string(longtake_tests::repository().join("docs/ADDING_A_DETECTOR.md")).unwrap();
    let paths: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|quoted| quoted.contains('/') && !quoted.contains(['<', ' ', ':']))
        .collect();
    assert!(paths.len() >= 8, "{paths:?}");
    for path in paths {
        assert!(longtake_tests::repository().join(path).exists(), "docs/ADDING_A_DETECTOR.md names `{path}`");
    }
}
