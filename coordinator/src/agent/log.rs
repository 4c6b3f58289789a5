//! The log of a worker: its standard output and error in one file, whose last lines go into a failure report.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Log lines in a failure report.
const LINES: usize = 20;

/// Longest line of a failure report in characters; the file has the rest.
const LINE_CHARS: usize = 400;

/// Bytes at the end of the file that are searched for them.
const TAIL_BYTES: u64 = 16 << 10;

/// A worker's log, open for appending.
#[derive(Debug)]
pub(super) struct WorkerLog {
    /// Shared with the worker's standard output and error.
    pub(super) file: File,
    /// Begin of this worker's part; earlier workers wrote the part before.
    begin: u64,
}

impl WorkerLog {
    /// Opens a log at its end, and creates it and its folder if absent.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot open the log `{}`: {error}", path.display()))
        };
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(named)?;
        let file = File::options().read(true).append(true).create(true).open(path).map_err(named)?;
        let begin = file.metadata()?.len();
        Ok(Self { file, begin })
    }

    /// The last lines of this worker; none if the file cannot be read.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.read_tail().unwrap_or_default()
    }

    fn read_tail(&self) -> io::Result<Vec<String>> {
        let end = self.file.metadata()?.len();
        let from = self.begin.max(end.saturating_sub(TAIL_BYTES)).min(end);
        let mut bytes = vec![0; (end - from) as usize];
        self.file.read_exact_at(&mut bytes, from)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<&str> = text.lines().collect();
        if from > self.begin && lines.len() > 1 {
            // The first line is incomplete.
            lines.remove(0);
        }
        let skip = lines.len().saturating_sub(LINES);
        Ok(lines[skip..].iter().map(|line| shortened(line)).collect())
    }
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_the_last_lines_of_this_worker_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker-0.log");
        std::fs::write(&path, "of an earlier worker\n").unwrap();
        let mut log = WorkerLog::open(&path).unwrap();
        assert_eq!(log.last_lines(), Vec::<String>::new());
        for line in 0..5000 {
            writeln!(log.file, "line {line}").unwrap();
        }
        let lines = log.last_lines();
        assert_eq!((lines.len(), lines[0].as_str(), lines[19].as_str()), (20, "line 4980", "line 4999"));
        writeln!(log.file, "{}", "é".repeat(1000)).unwrap();
        assert_eq!(log.last_lines()[19], format!("{}...", "é".repeat(400)));
    }
}
