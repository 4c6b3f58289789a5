//! Support for the suites across processes: run the real program, read the source tree.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the repository.
pub fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package lies in the workspace").to_owned()
}

/// One call of the program in a folder of its own.
#[derive(Debug)]
pub struct Call {
    command: Command,
    folder: PathBuf,
}

/// What a call said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its exit code; nothing where a signal ended it.
    pub code: Option<i32>,
    /// Standard output, with the folder's path written `[FOLDER]`.
    pub stdout: String,
    /// Standard error, the same way.
    pub stderr: String,
}

impl Call {
    /// `program` is `env!("CARGO_BIN_EXE_longtake-under-test")`; the environment is empty but for `PATH`.
    pub fn new(program: &str, folder: &Path) -> Self {
        let mut command = Command::new(program);
        command.current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Self { command, folder: folder.to_owned() }
    }

    /// Arguments as they would be typed, split at blanks.
    #[must_use]
    pub fn typed(mut self, words: &str) -> Self {
        self.command.args(words.split_whitespace());
        self
    }

    /// One argument that may hold blanks.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// The program cannot be started.
    pub fn run(mut self) -> Said {
        let Output { status, stdout, stderr } =
            self.command.output().expect("the program was built with the tests");
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.replace(&self.folder.display().to_string(), "[FOLDER]")
        };
        Said { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

impl Said {
    /// The whole of it as one text, for a snapshot.
    pub fn transcript(&self) -> String {
        let code = self.code.map_or_else(|| "signal".to_owned(), |code| code.to_string());
        let mut text = format!("exit code: {code}\n");
        for (name, stream) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !stream.is_empty() {
                text.push_str(&["--- ", name, "\n", stream.trim_end(), "\n"].concat());
            }
        }
        text.replace(concat!("longtake ", env!("CARGO_PKG_VERSION")), "longtake [VERSION]")
    }
}
