//! The command line of a worker process on this machine.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use longtake_shared::protocol::AGENT_PID_VARIABLE;

/// The arguments that differ from worker to worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Socket of its agent.
    pub socket: PathBuf,
    /// Its index in the run, from 0.
    pub index: u32,
    /// Address on which it listens for the other workers.
    pub bind: IpAddr,
    /// File of its flight recorder.
    pub flight: PathBuf,
}

/// The command that starts the workers of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerCommand {
    /// Program and first arguments, such as `longtake worker`; `--socket PATH --index I --bind IP --flight PATH` follow.
    pub program: Vec<OsString>,
    /// Threads of each worker; 0: the cores of the machine divided by the workers, at least 1.
    pub threads: usize,
    /// Number of workers on the machine.
    pub workers: usize,
}

impl WorkerCommand {
    /// This program in the role of a worker.
    ///
    /// # Errors
    /// The path of this program is unknown.
    pub fn this_program(threads: usize, workers: usize) -> io::Result<Self> {
        let program = vec![std::env::current_exe()?.into(), "worker".into()];
        Ok(Self { program, threads, workers })
    }

    /// The command of one worker. Its output goes to the log. It has its own process group, so that Ctrl-C in a terminal
    /// reaches the run once, through the coordinator.
    ///
    /// # Errors
    /// The program is empty, or the log cannot be shared.
    pub fn command(&self, place: &Place, log: &File) -> io::Result<Command> {
        let (program, arguments) =
            self.program.split_first().ok_or_else(|| io::Error::other("the worker's command is empty"))?;
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
        let worker_command =
            WorkerCommand { program: vec!["longtake".into(), "worker".into()], threads: 3, workers: 2 };
        let log = tempfile::tempfile().unwrap();
        let place = Place {
            socket: "/run/a.sock".into(),
            index: 1,
            bind: "10.0.0.7".parse().unwrap(),
            flight: "run/flight/worker-1.ring".into(),
        };
        let command = worker_command.command(&place, &log).unwrap();
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
        assert!(WorkerCommand { program: vec![], threads: 0, workers: 500 }.threads_each() == 1);
    }
}
