//! Standard output and standard error of this process: results, remarks, and the one report of what went wrong.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};
use longtake_shared::hint::{ExitCode, Failure};
use serde::Serialize;
use serde_json::json;

/// How this process talks.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    json: bool,
    colour: bool,
    live: bool,
}

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

impl Console {
    /// As standard error, `NO_COLOR` and `TERM` ask for; `json` is what was typed.
    pub fn of_process(json: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let live = io::stderr().is_terminal() && !dumb;
        Self { json, colour: live && !set("NO_COLOR"), live }
    }

    /// Whether bars can be drawn.
    pub fn live(&self) -> bool {
        self.live
    }

    /// What a command gives: `text` for people, or `value` where JSON was asked for.
    ///
    /// # Errors
    /// Standard output cannot be written. A reader that has had enough is no error.
    pub fn result(&self, text: &str, value: &impl Serialize) -> Result<(), Failure> {
        let written = if self.json {
            let line = serde_json::to_string(value)
                .map_err(|error| Failure::new(format!("the result has no JSON form: {error}")))?;
            writeln!(io::stdout(), "{line}")
        } else {
            writeln!(io::stdout(), "{}", text.trim_end())
        };
        match written.and_then(|()| io::stdout().flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(format!("standard output cannot be written: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// A remark that is not the result.
    pub fn say(&self, line: &str) {
        self.to_stderr(line);
    }

    /// Something a user should know that does not end the command.
    pub fn warn(&self, message: &str) {
        self.to_stderr(&format!("{} {message}", self.painted(YELLOW, "warning:")));
    }

    /// The one report of a failure; gives the exit code.
    pub fn fail(&self, failure: &Failure) -> ExitCode {
        self.error_object(&failure.message, failure.hint.as_deref(), failure.exit);
        self.complain(failure)
    }

    /// The same for people alone, where the result as JSON tells of it too.
    pub fn complain(&self, failure: &Failure) -> ExitCode {
        let mut report = format!("{} {}", self.painted(RED, "error:"), failure.message);
        if let Some(hint) = &failure.hint {
            let advice = format!("\n{} {hint}", self.painted(CYAN, "hint:"));
            report.push_str(&advice);
        }
        self.to_stderr(&report);
        failure.exit
    }

    /// What clap has to say: help and version are results, everything else is a mistake in the command line.
    pub fn usage(&self, error: &clap::Error) -> ExitCode {
        // A closed standard output leaves nobody to tell.
        drop(error.print());
        if error.exit_code() == 0 {
            return ExitCode::Done;
        }
        let rendered = error.to_string();
        let first = rendered.lines().next().unwrap_or_default();
        self.error_object(first.trim_start_matches("error: "), None, ExitCode::Usage);
        ExitCode::Usage
    }

    /// A bar for work that is counted; hidden where bars cannot be drawn.
    pub fn bar(&self, what: &str) -> ProgressBar {
        if !self.live {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::no_length().with_prefix(what.to_owned());
        match ProgressStyle::with_template("{prefix:>10} {bar:28} {pos}/{len} ETA {eta}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }

    fn error_object(&self, message: &str, hint: Option<&str>, exit: ExitCode) {
        if self.json {
            let object = json!({ "error": { "message": message, "hint": hint, "exit_code": exit.code() } });
            // The exit code says it again to a reader that is gone.
            drop(writeln!(io::stdout(), "{object}"));
        }
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
    }

    #[allow(clippy::unused_self, reason = "printing is the console's, whatever it looks at")]
    fn to_stderr(self, text: &str) {
        // Nobody is left to tell that standard error is closed.
        drop(writeln!(io::stderr(), "{text}"));
    }
}
