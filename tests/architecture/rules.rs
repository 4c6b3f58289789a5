//! Absences that are rules: unsafe code outside a short list, classes by string, a default that builds everything.

use longtake_tests::repository;

use crate::source::rust_files;

/// Files with unsafe code, and what has no safe interface.
const UNSAFE: [(&str, &str); 6] = [
    (
        "shared/src/protocol/flight/mapped.rs",
        "a record that two processes see needs atomics in mapped memory",
    ),
    ("worker/src/bench/memory.rs", "a memory map that the store is measured beside"),
    ("worker/src/collective/nccl.rs", "NCCL and device pointers"),
    ("worker/src/model/ops/matrix.rs", "the matrix kernels of the crate gemm take pointers"),
    ("worker/src/model/ops/simd.rs", "code for AVX2 may only run where AVX2 is"),
    ("worker/tests/counting/mod.rs", "an allocator that counts"),
];

#[test]
fn unsafe_code_is_only_where_nothing_safe_does_it() {
    let found: Vec<String> = rust_files()
        .into_iter()
        .filter(|source| source.all_names().contains("unsafe"))
        .map(|source| source.path)
        .collect();
    let allowed: Vec<&str> = UNSAFE.iter().map(|(path, _)| *path).collect();
    assert_eq!(found, allowed, "with a reason in the list, or not at all");
}

/// Types of tables that find code by a text.
const REGISTRIES: [&str; 8] = [
    "Map<String,fn(",
    "Map<&'staticstr,fn(",
    "Map<String,Box<dyn",
    "Map<&'staticstr,Box<dyn",
    "Map<String,Arc<dyn",
    "[(&str,fn(",
    "[(&'staticstr,fn(",
    "(String,Box<dyn",
];

#[test]
fn no_class_is_found_by_a_string() {
    for source in rust_files().into_iter().filter(|source| !source.path.starts_with("tests/")) {
        let code: String = source.code().chars().filter(|letter| !letter.is_whitespace()).collect();
        for registry in REGISTRIES {
            assert!(!code.contains(registry), "{} holds a registry `{registry}`: use an enum", source.path);
        }
    }
    // Crates that collect code of the whole program under names.
    for package in ["shared", "coordinator", "worker"] {
        let manifest = std::fs::read_to_string(repository().join(package).join("Cargo.toml")).unwrap();
        for registry in ["inventory", "linkme", "typetag", "ctor"] {
            let named = manifest.lines().any(|line| line.trim_start().starts_with(registry));
            assert!(!named, "{package}/Cargo.toml names `{registry}`");
        }
    }
}

#[test]
fn a_fresh_clone_builds_the_program_and_nothing_else() {
    let text = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    let list = |key: &str| -> Vec<String> {
        let values = manifest["workspace"][key].as_array().unwrap();
        values.iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(list("default-members"), ["coordinator"]);
    assert_eq!(list("members"), ["shared", "coordinator", "worker", "tests"]);
    assert_eq!(manifest["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("deny"));
}

#[test]
fn the_program_has_the_worker_by_default_and_can_do_without() {
    let text = std::fs::read_to_string(repository().join("coordinator/Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    let features = |name: &str| -> Vec<String> {
        let values = manifest["features"][name].as_array().unwrap();
        values.iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    assert!(features("default").contains(&"worker".to_owned()));
    assert_eq!(features("worker"), ["dep:longtake-worker"]);
    let checks = std::fs::read_to_string(repository().join(".ci/run")).unwrap();
    assert!(
        checks.contains("--no-default-features"),
        "`.ci/run` must compile the program without the worker"
    );
}
