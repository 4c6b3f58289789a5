//! Who may know whom: packages by their Cargo.toml, modules by the names in their code.

use longtake_tests::repository;

use crate::source::rust_files;

/// Package, and what it must not depend on.
const PACKAGES: [(&str, &[&str]); 3] = [
    ("shared", &["burn", "burn-store", "burn-flex", "burn-autodiff", "burn-backend", "cudarc", "longtake-"]),
    (
        "coordinator",
        &["burn", "burn-store", "burn-flex", "burn-autodiff", "burn-backend", "cudarc", "longtake-tests"],
    ),
    ("worker", &["longtake-coordinator", "longtake-tests"]),
];

/// Folder or file, names that must not occur in its code, and why.
const ABSENCES: [(&str, &[&str], &str); 9] = [
    ("shared/src/", &["burn", "cudarc", "longtake_coordinator", "longtake_worker"], "shared knows no role"),
    ("coordinator/src/", &["burn", "cudarc"], "the coordinator touches no tensor"),
    ("worker/src/", &["longtake_coordinator"], "worker and coordinator meet in shared"),
    (
        "coordinator/src/run/",
        &["tokio", "tonic", "prost", "Instant", "SystemTime", "fs", "net", "thread", "longtake_worker"],
        "the protocol is a value: it is told the time and does nothing itself",
    ),
    ("worker/src/control/", &["burn"], "control never touches a tensor"),
    (
        "worker/src/model/",
        &[
            "fs",
            "File",
            "Rank",
            "tokio",
            "crate::data",
            "crate::train",
            "crate::collective",
            "crate::control",
        ],
        "a model reads no file and knows no rank",
    ),
    ("worker/src/loss/", &["fs", "Rank", "crate::train", "crate::collective"], "a loss knows no rank"),
    ("worker/src/collective/", &["crate::model", "crate::train"], "a collective sums plain numbers"),
    (
        "worker/src/data/",
        &["crate::model", "crate::train", "crate::collective"],
        "data comes before everything",
    ),
];

#[test]
fn packages_depend_in_one_direction() {
    for (package, banned) in PACKAGES {
        let path = repository().join(package).join("Cargo.toml");
        let manifest: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let names = manifest.get(section).and_then(toml::Value::as_table);
            for name in names.into_iter().flat_map(toml::Table::keys) {
                let wrong =
                    banned.iter().any(|ban| name == ban || (ban.ends_with('-') && name.starts_with(ban)));
                assert!(!wrong, "{package}/Cargo.toml must not name `{name}` in [{section}]");
            }
        }
    }
}

#[test]
fn the_worker_library_is_an_option_of_the_coordinator() {
    let path = repository().join("coordinator/Cargo.toml");
    let manifest: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    assert_eq!(manifest["dependencies"]["longtake-worker"]["optional"].as_bool(), Some(true));
}

#[test]
fn modules_do_not_name_what_they_must_not_know() {
    let mut wrong = Vec::new();
    for source in rust_files() {
        let names = source.names();
        for (place, banned, why) in ABSENCES {
            let found = banned.iter().filter(|name| source.path.starts_with(place) && names.contains(**name));
            wrong.extend(found.map(|name| format!("{} names `{name}`: {why}", source.path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_main_names_the_worker_library() {
    let naming: Vec<String> = rust_files()
        .into_iter()
        .filter(|source| {
            source.path.starts_with("coordinator/") && source.names().contains("longtake_worker")
        })
        .map(|source| source.path)
        .collect();
    assert_eq!(naming, ["coordinator/src/main.rs"]);
}

#[test]
fn only_the_console_and_the_edge_print() {
    const EDGE: [&str; 2] = ["coordinator/src/terminal/", "coordinator/src/main.rs"];
    let printing: Vec<String> = rust_files()
        .into_iter()
        .filter(|source| source.path.starts_with("coordinator/") || source.path.starts_with("shared/"))
        .filter(|source| !EDGE.iter().any(|edge| source.path.starts_with(edge)))
        .filter(|source| {
            ["io::stdout", "println", "eprintln"].iter().any(|name| source.names().contains(*name))
        })
        .map(|source| source.path)
        .collect();
    assert!(printing.is_empty(), "results go through terminal::console: {printing:?}");
}
