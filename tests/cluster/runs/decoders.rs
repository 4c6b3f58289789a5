//! Programs that decode: they end with the worker that has started them, even where they hang.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{Lab, Process, until};

/// Answers what is asked of `ffprobe`: eight seconds of 64x48 pixels at 15 frames a second.
const FFPROBE: &str = r#"#!/bin/sh
case "$*" in
*-version*) echo "ffprobe version 6.1" ;;
*packet=*) i=0; while [ $i -lt 120 ]; do echo "pts=$((i * 1024))|duration=1024|flags=K_"; i=$((i + 1)); done ;;
*) echo '{"streams":[{"index":0,"width":64,"height":48,"time_base":"1/15360"}],"format":{"start_time":"0"}}' ;;
esac
"#;

/// Leaves its number as a file and hangs; not for ever, so that a test that fails leaves nothing for long.
const FFMPEG: &str = r#"#!/bin/sh
case "$*" in *-version*) echo "ffmpeg version 6.1"; exit ;; esac
: >"${0%/*}/hung/$$"
exec sleep 100
"#;

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
    let lab = Lab::new();
    let programs = lab.path("programs");
    fs::create_dir_all(programs.join("hung")).unwrap();
    write_program(&programs.join("ffprobe"), FFPROBE);
    write_program(&programs.join("ffmpeg"), FFMPEG);
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
