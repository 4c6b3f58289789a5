//! metrics.jsonl: every update of a run as one JSON object a line, for whoever draws curves.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use longtake_shared::hint::Failure;
use serde::Serialize;

use crate::updates::RunUpdate;

/// The open file. A resumed run appends to it.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since the Unix epoch.
    at: f64,
    #[serde(flatten)]
    update: &'a RunUpdate,
}

impl MetricsFile {
    /// Opens the file for appending; makes it, and its folder, where there is none.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)
            .and_then(|()| OpenOptions::new().create(true).append(true).open(path))
            .map(|file| Self { path: path.to_owned(), file })
            .map_err(|error| {
                Failure::new(format!("`{}` cannot be written: {error}", path.display()))
                    .hint("set `run.folder` to a folder that can be written")
            })
    }

    /// Appends one line in one write, so that a killed run leaves whole lines.
    ///
    /// # Errors
    /// The disk is full or the file is gone.
    pub fn append(&mut self, update: &RunUpdate) -> io::Result<()> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut line = serde_json::to_vec(&Line { at, update })?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
