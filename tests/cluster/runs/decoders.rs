//! Programs that decode: they end with the worker that has started them, even where they hang.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{Lab, Process, until};

/// The program of the machine, except in a worker: there it leaves its number as a file and hangs; not for ever, so that a test that
/// fails leaves nothing for long. The look before a run decodes in the process that starts the workers.
const FFMPEG: &str = r#"#!/bin/sh
case "$*" in *-version*) exec REAL "$@" ;; esac
case "$(tr '\0' ' ' <"/proc/$PPID/cmdline")" in
*" worker "*) ;;
*) exec REAL "$@" ;;
esac
: >"${0%/*}/hung/$$"
exec sleep 100
"#;

/// Where the machine has a program.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn setpriv_is_there() -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn an_ffmpeg_that_hangs_does_not_outlive_its_killed_worker() {
    if !setpriv_is_there() {
        println!("SKIPPED an_ffmpeg_that_hangs_does_not_outlive_its_killed_worker: no `setpriv` on PATH");
        return;
    }
    let Some(ffmpeg) = on_path("ffmpeg") else {
        println!("SKIPPED an_ffmpeg_that_hangs_does_not_outlive_its_killed_worker: no `ffmpeg` on PATH");
        return;
    };
    let lab = Lab::new();
    let programs = lab.path("programs");
    fs::create_dir_all(programs.join("hung")).unwrap();
    write_program(&programs.join("ffmpeg"), &FFMPEG.replace("REAL", &ffmpeg.display().to_string()));
    let coordinator = lab.start_before(&programs, "train tiny.toml --set data.decoder=ffmpeg");
    let hung = until("a hung ffmpeg", || {
        let numbers = fs::read_dir(programs.join("hung")).unwrap();
        let numbers = numbers.map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap());
        Some(numbers.filter_map(Process::of).collect::<Vec<_>>()).filter(|hung| !hung.is_empty())
    });
    let workers = lab.workers();
    assert!(!workers.is_empty());
    // Nobody is left to end the workers' groups: the kernel ends the workers, and what they have started.
    coordinator.signal(Signal::KILL);
    for (who, processes) in [("worker", &workers), ("ffmpeg", &hung)] {
        for process in processes {
            assert!(process.ends_within(Duration::from_secs(5)), "{who} {:?} goes on", process.pid);
        }
    }
    let said = coordinator.end();
    assert!(said.stderr.contains("decoders: 0 videos embedded, 6 ffmpeg (the first is `"), "{said:?}");
    assert!(said.stderr.contains("the key `data.decoder` asks for it"), "{said:?}");
}
