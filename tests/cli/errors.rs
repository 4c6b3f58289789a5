//! Bad input: one sentence that names the file or the key, what to do, an exit code, and nothing half-written.

use std::fs;

use insta::assert_snapshot;

use crate::{longtake, longtake_in};

#[test]
fn weights_that_do_not_exist() {
    assert_snapshot!(longtake("detect best.safetensors video.mp4").transcript());
}

#[test]
fn a_folder_where_weights_belong() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("runs")).unwrap();
    assert_snapshot!(longtake_in(folder.path(), "detect runs video.mp4").transcript());
}

#[test]
fn synth_leaves_a_folder_alone_that_holds_something() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.tex"), "precious").unwrap();
    let target = folder.path().display().to_string();
    let said = longtake_in(folder.path(), &format!("synth {target}"));
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(said.stderr.starts_with("error: ") && said.stderr.contains("[FOLDER]"), "{said:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_program_that_asked_for_json_gets_the_error_as_json() {
    let said = longtake("import missing.pth --json");
    let object: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(object["error"]["exit_code"], 78);
    assert_eq!(said.code, Some(78));
    let message = object["error"]["message"].as_str().unwrap();
    assert!(message.contains("missing.pth") && said.stderr.contains(message), "{said:?}");
}

#[test]
fn a_mistake_in_the_command_line_is_json_too() {
    let said = longtake("detekt --json");
    let object: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((said.code, &object["error"]["exit_code"]), (Some(2), &serde_json::json!(2)));
}

#[test]
fn no_colour_where_nobody_sees_it() {
    assert!(!longtake("import missing.pth").stderr.contains('\u{1b}'));
}
