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

/// What a pure decision does not do itself; and whose order of iteration differs from run to run.
const DOINGS: &[&str] = &[
    "tokio",
    "tonic",
    "prost",
    "Instant",
    "SystemTime",
    "fs",
    "TcpStream",
    "TcpListener",
    "thread",
    "HashMap",
];

/// Folder, names that must not occur in its code, why, and files that may for a reason of their own.
struct Absence {
    place: &'static str,
    names: &'static [&'static str],
    why: &'static str,
    except: &'static [&'static str],
}

const ABSENCES: [Absence; 13] = [
    Absence {
        place: "shared/src/",
        names: &["burn", "cudarc", "longtake_coordinator", "longtake_worker"],
        why: "shared knows no role",
        except: &[],
    },
    Absence {
        place: "coordinator/src/",
        names: &["burn", "cudarc"],
        why: "the coordinator touches no tensor",
        except: &[],
    },
    Absence {
        place: "worker/src/",
        names: &["longtake_coordinator"],
        why: "worker and coordinator meet in shared",
        except: &[],
    },
    Absence {
        place: "coordinator/src/run/",
        names: DOINGS,
        why: "the protocol is a value: it is told the time and does nothing itself",
        except: &[],
    },
    Absence {
        place: "coordinator/src/agent/core/",
        names: DOINGS,
        why: "what a node decides is a value: it is told the time and does nothing itself",
        except: &[],
    },
    Absence {
        place: "worker/src/control/",
        names: &["burn"],
        why: "control never touches a tensor",
        except: &[],
    },
    Absence {
        place: "worker/src/model/",
        names: &["Rank", "tokio", "crate::data", "crate::train", "crate::collective", "crate::control"],
        why: "a model knows no rank and nothing of the run around it",
        except: &[],
    },
    Absence {
        place: "worker/src/model/",
        names: &["fs", "File"],
        why: "`forward` reads no file",
        // The long memory is a store, and published weights come from a file.
        except: &[
            "worker/src/model/memory/",
            "worker/src/model/backbone/swin/import.rs",
            "worker/src/model/backbone/swin/stored.rs",
        ],
    },
    Absence {
        place: "worker/src/model/",
        names: &["memory"],
        why: "remembered rows come in as an argument, and fresh ones go out as a result",
        // The rooms themselves, and the list of rooms.
        except: &["worker/src/model/memory/", "worker/src/model/mod.rs"],
    },
    Absence {
        place: "worker/src/tensors/",
        names: &[
            "crate::data",
            "crate::model",
            "crate::train",
            "crate::optim",
            "crate::infer",
            "crate::checkpoint",
            "crate::collective",
            "crate::control",
        ],
        why: "the ground floor stands on nothing",
        except: &[],
    },
    Absence {
        place: "worker/src/loss/",
        names: &["fs", "Rank", "crate::train", "crate::collective"],
        why: "a loss knows no rank",
        except: &[],
    },
    Absence {
        place: "worker/src/collective/",
        names: &["crate::train", "crate::optim", "crate::data", "crate::loss"],
        why: "a collective sums plain numbers",
        except: &[],
    },
    Absence {
        place: "worker/src/data/",
        names: &["crate::train", "crate::collective", "crate::loss", "crate::optim", "crate::control"],
        why: "data comes before everything",
        except: &[],
    },
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
        for absence in &ABSENCES {
            let excepted = absence.except.iter().any(|place| source.path.starts_with(place));
            if source.path.starts_with(absence.place) && !excepted {
                let found = absence.names.iter().filter(|name| names.contains(**name));
                wrong.extend(found.map(|name| format!("{} names `{name}`: {}", source.path, absence.why)));
            }
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
        .filter(|source| {
            ["coordinator/src/", "shared/src/"].iter().any(|place| source.path.starts_with(place))
        })
        .filter(|source| !EDGE.iter().any(|edge| source.path.starts_with(edge)))
        .filter(|source| {
            ["io::stdout", "println", "eprintln"].iter().any(|name| source.names().contains(*name))
        })
        .map(|source| source.path)
        .collect();
    assert!(printing.is_empty(), "results go through terminal::console: {printing:?}");
}
