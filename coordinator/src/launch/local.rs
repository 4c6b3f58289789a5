//! The command line of a worker on this machine.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use longtake_shared::protocol::AGENT_PID_VARIABLE;

/// Where one worker has its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The socket of its agent.
    pub socket: PathBuf,
    /// Which worker of the run it is, from 0.
    pub index: u32,
    /// Where it listens for the other workers.
    pub bind: IpAddr,
    /// The ring of its flight recorder.
    pub flight: PathBuf,
}

/// How this machine's workers are started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalLauncher {
    /// Program and first arguments, such as `longtake worker`; `--socket PATH --index I --bind IP --flight PATH` follow.
    pub command: Vec<OsString>,
    /// Threads of each worker; 0: the machine's cores divided by the workers, at least 1.
    pub threads: usize,
    /// Workers that share the machine.
    pub workers: usize,
}

impl LocalLauncher {
    /// This program in the role of a worker.
    ///
    /// # Errors
    /// The path of this program cannot be found out.
    pub fn this_program(threads: usize, workers: usize) -> io::Result<Self> {
        let command = vec![std::env::current_exe()?.into(), "worker".into()];
        Ok(Self { command, threads, workers })
    }

    /// The command of one worker. Its output goes to the log; it has its own process group, so that a terminal's Ctrl-C
    /// reaches the run once, through the coordinator.
    ///
    /// # Errors
    /// There is no program to start, or the log cannot be shared.
    pub fn command(&self, place: &Place, log: &File) -> io::Result<Command> {
        let (program, arguments) =
            self.command.split_first().ok_or_else(|| io::Error::other("the worker's command is empty"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg("--socket")
            .arg(&place.socket)
            .arg("--index")
            .arg(place.index.to_string())
            .arg("--bind")
            .arg(place.bind.to_string())
            .arg("--flight")
            .arg(&place.flight)
            .env("RAYON_NUM_THREADS", self.threads_each().to_string())
            .env(AGENT_PID_VARIABLE, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .process_group(0);
        Ok(command)
    }

    /// Threads of each worker.
    pub fn threads_each(&self) -> usize {
        if self.threads > 0 {
            return self.threads;
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (cores / self.workers.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_told_its_place_and_threads() {
        let launcher =
            LocalLauncher { command: vec!["longtake".into(), "worker".into()], threads: 3, workers: 2 };
        let log = tempfile::tempfile().unwrap();
        let place = Place {
            socket: "/run/a.sock".into(),
            index: 1,
            bind: "10.0.0.7".parse().unwrap(),
            flight: "run/flight/worker-1.ring".into(),
        };
        let command = launcher.command(&place, &log).unwrap();
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        assert_eq!(
            arguments.join(" "),
            "worker --socket /run/a.sock --index 1 --bind 10.0.0.7 --flight run/flight/worker-1.ring"
        );
        assert!(
            command
                .get_envs()
                .any(|(name, value)| name == "RAYON_NUM_THREADS" && value == Some("3".as_ref()))
        );
        assert!(LocalLauncher { command: vec![], threads: 0, workers: 500 }.threads_each() == 1);
    }
}
