//! A child process that is read with bounds: in time, in memory, and it never outlives its owner.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::fault::Fault;

/// How long a child may say nothing before it counts as hung. Seeking in a long file on a slow share takes seconds.
const SILENCE: Duration = Duration::from_mins(1);
/// Blocks of output that wait for us; beyond them the child waits.
const WAITING_BLOCKS: usize = 3;
/// Lines of the child's messages that wait for us; it writes one a picture.
const WAITING_LINES: usize = 1 << 16;
/// Longest message line that is read.
const MAX_LINE: u64 = 1 << 16;
/// Block size where output is text.
pub(super) const TEXT_BLOCK: usize = 1 << 16;

/// A running child whose output and messages are read by two threads.
pub(super) struct Watched {
    program: &'static str,
    child: Child,
    output: Option<Receiver<Vec<u8>>>,
    messages: Option<Receiver<String>>,
    threads: Vec<JoinHandle<()>>,
}

impl Watched {
    /// Starts a program found on PATH. Output comes in blocks of `block` bytes; only the last may be shorter.
    pub(super) fn start(program: &'static str, arguments: &[OsString], block: usize) -> Result<Self, Fault> {
        let failed = |error: std::io::Error| Fault::Ffmpeg(format!("`{program}` does not start: {error}"));
        let mut child = mortal(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        // Owned from here on, so that no early return leaves the child running.
        let mut watched = Self { program, child, output: None, messages: None, threads: Vec::new() };
        if let (Some(stdout), Some(stderr)) = (stdout, stderr) {
            let (blocks, output) = sync_channel(WAITING_BLOCKS);
            let (lines, messages) = sync_channel(WAITING_LINES);
            (watched.output, watched.messages) = (Some(output), Some(messages));
            let name = |what: &str| Builder::new().name(format!("{program}-{what}"));
            let reader = name("output").spawn(move || send_blocks(stdout, block, &blocks)).map_err(failed)?;
            watched.threads.push(reader);
            let reader = name("messages").spawn(move || send_lines(stderr, &lines)).map_err(failed)?;
            watched.threads.push(reader);
        }
        Ok(watched)
    }

    /// The next block of output; `None` at its end.
    pub(super) fn block(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        receive(self.output.as_ref(), self.program)
    }

    /// The next line of messages; `None` at their end.
    pub(super) fn message(&mut self) -> Result<Option<String>, Fault> {
        receive(self.messages.as_ref(), self.program)
    }

    /// The whole output as text, and the messages; an error if it exceeds `limit` bytes or the child fails.
    pub(super) fn finish(mut self, limit: usize) -> Result<(String, Vec<String>), Fault> {
        let mut output = Vec::new();
        while let Some(block) = self.block()? {
            output.extend_from_slice(&block);
            if output.len() > limit {
                return Err(Fault::Ffmpeg(format!("`{}` says more than {limit} bytes", self.program)));
            }
        }
        let mut messages = Vec::new();
        while let Some(line) = self.message()? {
            messages.push(line);
        }
        // Both pipes are closed: it ends on its own.
        let status = self.child.wait().map_err(Fault::Read)?;
        if !status.success() {
            return Err(Fault::Ffmpeg(real_error(&messages, &status.to_string())));
        }
        Ok((String::from_utf8_lossy(&output).into_owned(), messages))
    }
}

/// A command whose process the kernel kills when the thread that starts it ends, however that happens: a hung program must not
/// outlive a killed worker, and a thread waits for its own programs only.
///
/// Asking the kernel is the child's to do, between its start and the program: util-linux's `setpriv` does it and becomes the
/// program. Where there is none, a program ends when it next writes to its closed pipe.
fn mortal(program: &str) -> Command {
    const ASK: [&str; 3] = ["--pdeathsig", "KILL", "--"];
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        let mut nothing = Command::new("setpriv");
        nothing.args(ASK).arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        nothing.status().is_ok_and(|status| status.success())
    });
    if !found {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(ASK).arg(program);
    command
}

/// The first message that tells of an error, without the part of ffmpeg that it comes from: what follows it are consequences.
pub(super) fn real_error(messages: &[String], otherwise: &str) -> String {
    let text = messages.iter().find_map(|line| error_of(line)).map_or(otherwise, |(_, text)| text);
    text.trim().trim_end_matches('.').chars().take(300).collect()
}

/// The part of ffmpeg that tells of an error, such as `h264`, and its text; `None` for other messages. Of a line such as
/// `[h264 @ 0x55d9] [error] no frame!`.
pub(super) fn error_of(line: &str) -> Option<(Option<&str>, &str)> {
    let at = ["[error] ", "[fatal] ", "[panic] "].iter().find_map(|level| {
        line.find(level)
            .filter(|at| line[..*at].is_empty() || line[..*at].ends_with("] "))
            .map(|at| (at, level.len()))
    });
    let (at, level) = at?;
    let part = line[..at].strip_prefix('[').and_then(|part| part.split([' ', ']']).next());
    Some((part, line[at + level..].trim_end()))
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It may have ended already; either way nothing is left to do about a failure here.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Closing our ends first, so that a reader blocked on a full channel gives up.
        (self.output, self.messages) = (None, None);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn receive<T>(channel: Option<&Receiver<T>>, program: &'static str) -> Result<Option<T>, Fault> {
    match channel.map(|channel| channel.recv_timeout(SILENCE)) {
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(RecvTimeoutError::Timeout)) => Err(Fault::Hung { program, seconds: SILENCE.as_secs() }),
        Some(Err(RecvTimeoutError::Disconnected)) | None => Ok(None),
    }
}

fn send_blocks(mut stdout: impl Read, block: usize, blocks: &SyncSender<Vec<u8>>) {
    loop {
        let mut buffer = Vec::with_capacity(block);
        // A read error ends the output; the caller sees that it is too short.
        let read = stdout.by_ref().take(block as u64).read_to_end(&mut buffer);
        if read.is_err() || buffer.is_empty() || blocks.send(buffer).is_err() {
            return;
        }
    }
}

fn send_lines(stderr: impl Read, lines: &SyncSender<String>) {
    let mut stderr = BufReader::new(stderr);
    loop {
        let mut line = Vec::new();
        let read = stderr.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) || lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_error_is_the_first_line_of_that_level() {
        let lines = [
            "[info] Input #0, flv, from 'x.flv':",
            "[h264 @ 0x55] [warning] co located POCs unavailable",
            "[h264 @ 0x55] [error] Error splitting the input into NAL units.",
            "[error] Error while decoding stream #0:0: Invalid data found when processing input",
        ]
        .map(str::to_owned);
        assert_eq!(real_error(&lines, "nothing"), "Error splitting the input into NAL units");
        assert_eq!(real_error(&lines[..2], "nothing"), "nothing");
        assert_eq!(error_of(&lines[2]).unwrap().0, Some("h264"));
        assert_eq!(error_of(&lines[3]).unwrap().0, None);
        assert_eq!(error_of("[info] title: [error] in a name"), None);
    }
}
