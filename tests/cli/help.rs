//! Help, version, and mistakes in the command line.

use insta::assert_snapshot;

use crate::longtake;

#[test]
fn help_names_every_command() {
    assert_snapshot!(longtake("--help").transcript());
}

#[test]
fn nothing_typed_shows_the_help() {
    let said = longtake("");
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert!(said.stderr.contains("longtake train configs/quickstart.toml"), "{}", said.stderr);
}

#[test]
fn help_of_each_command() {
    for command in [
        "train",
        "coordinator",
        "agent",
        "pretrain",
        "detect",
        "evaluate",
        "import",
        "synth",
        "data check",
        "config",
        "status",
        "flight",
        "stop",
        "checkpoint",
        "checkpoint list",
        "checkpoint verify",
        "checkpoint prune",
        "bench",
    ] {
        let said = longtake(&format!("{command} --help"));
        assert_eq!(said.code, Some(0), "{command}: {}", said.stderr);
        assert_snapshot!(format!("help_{}", command.replace(' ', "_")), said.stdout);
    }
}

#[test]
fn a_command_that_does_not_exist_is_answered_with_the_nearest() {
    assert_snapshot!(longtake("trian configs/quickstart.toml").transcript());
}

#[test]
fn an_option_that_does_not_exist_is_answered_with_the_nearest() {
    assert_snapshot!(longtake("train configs/quickstart.toml --resum runs/quickstart").transcript());
}

#[test]
fn different_settings_are_allowed_only_to_a_run_that_goes_on() {
    assert_snapshot!(longtake("train configs/quickstart.toml --allow-different-config").transcript());
}

#[test]
fn version_is_one_line() {
    assert_snapshot!(longtake("--version").transcript());
}
