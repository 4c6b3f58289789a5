//! Going on under other settings, and from checkpoints that are damaged.

use std::fs;
use std::process::Command;

use insta::assert_snapshot;

use crate::lab::Lab;

/// A finished run of four steps.
fn short() -> Lab {
    let lab = Lab::new();
    lab.train(
        "--set pretrain.steps=0 --set train.epochs=2 --set train.validate_every=0 --set checkpoint.every=1",
    );
    lab
}

#[test]
fn another_configuration_is_refused_by_name_and_allowed_on_request() {
    let lab = short();
    let other = "train --resume runs/tiny --set optim.learning_rate=0.002";
    let settings = fs::read(lab.path("runs/tiny/config.json")).unwrap();
    assert_snapshot!(lab.run(other).transcript());
    assert_eq!(fs::read(lab.path("runs/tiny/config.json")).unwrap(), settings);

    for allowed in ["--allow-different-config", "--set checkpoint.allow_changes=true"] {
        let lab = short();
        let said = lab.run(&format!("{other} {allowed}"));
        assert_eq!(said.code, Some(0), "{allowed}: {said:?}");
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_named() {
    let lab = short();
    let newest = lab.newest();
    assert_eq!(newest.step.0, 4);
    let part = lab.path(&format!("runs/tiny/parts/{}", newest.model.hash));
    let mut bytes = fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut permissions = fs::metadata(&part).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "the test's own file")]
    permissions.set_readonly(false);
    fs::set_permissions(&part, permissions).unwrap();
    fs::write(&part, bytes).unwrap();
    let before = lab.parts();

    let said = lab.run("train --resume runs/tiny");
    assert_eq!(said.code, Some(0), "{said:?}");
    let hash = &newest.model.hash;
    let warning = format!(
        "warning: `parts/{hash}` does not match the hash that is its name: the checkpoint that needs it"
    );
    assert!(said.stderr.starts_with(&warning), "{said:?}");
    assert!(lab.path(&format!("runs/tiny/damaged/{hash}")).exists());
    assert_eq!(lab.parts(), before, "the steps after the older checkpoint come to the same bits");
}

#[test]
fn a_folder_that_holds_no_run() {
    let lab = Lab::new();
    assert_snapshot!(lab.run("train --resume data").transcript());
}

/// A small disk, given back in the end.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Nothing where this user may not mount one.
    fn at(folder: std::path::PathBuf) -> Option<Self> {
        fs::create_dir_all(&folder).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&folder).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[test]
fn a_full_disk_ends_the_run_and_what_was_saved_counts() {
    let lab = Lab::new();
    let Some(disk) = SmallDisk::at(lab.path("runs")) else {
        eprintln!("SKIPPED: only root may mount a small disk");
        return;
    };
    let more =
        "--set pretrain.steps=0 --set train.epochs=40 --set train.validate_every=0 --set checkpoint.every=1";
    let said = lab.run(&format!("train tiny.toml --set checkpoint.keep=1000 {more}"));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("no space is left to write"), "{said:?}");
    assert!(said.stderr.contains("longtake train --resume runs/tiny"), "{said:?}");
    // Whoever makes room goes on.
    let saved = lab.path("saved");
    let copied = Command::new("cp").arg("-r").arg(lab.path("runs/tiny")).arg(&saved).status().unwrap();
    assert!(copied.success());
    drop(disk);
    fs::rename(saved, lab.path("runs/tiny")).unwrap();
    let said = lab.run("train --resume runs/tiny");
    assert_eq!(said.code, Some(0), "{said:?}");
}
